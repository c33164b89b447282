"""A federation with clients that fail, lie, forget or stay silent."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pemn.errors import NetworkError, RemoteError
from pemn.federation.levels import HIGHEST, LOWEST
from pemn.ledger import Entry
from pemn.wire.messages import Content, Failure, Metrics, decode, encode
from pemn.wire.spec import Spec
from pemn_client.node import Node
from pemn_client.store import MemoryStore
from pemn_server.flower import Fleet, PemnGrid
from pemn_server.log import Log
from pemn_server.outcome import Outcome
from pemn_server.progress import Progress
from pemn_server.record import LedgerRecord, read_entries
from pemn_server.run import Federation, fedavg_bytes
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((9, 13), (10, 9)))
ROUNDS = 4
Answerer = Callable[[Node, str, bytes], bytes | None]


@dataclass
class Jitter:
    """A trainer without a network."""

    slot: int

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        moved = q + np.random.default_rng([self.slot, round_]).normal(0, 5000, q.size)
        return moved.clip(LOWEST, HIGHEST).astype(np.uint16), Metrics(7 + self.slot, 1, 1)


def honest(node: Node, action: str, task: bytes) -> bytes | None:
    return encode(node.handle(action, decode(task)))


class ScriptedGrid(PemnGrid):
    """Answers at once, each slot in its own way; None is silence."""

    wire_source = "framed"

    def __init__(self, answerers: list[Answerer]) -> None:
        super().__init__()
        self.answerers = answerers
        self.nodes = [self.fresh(slot) for slot in range(len(answerers))]

    def fresh(self, slot: int) -> Node:
        def make(spec: Spec, number: int) -> Jitter:
            return Jitter(number)

        return Node(slot, MemoryStore(), make)

    def slots(self) -> list[int]:
        return list(range(len(self.answerers)))

    def wire(self) -> None:
        return None

    def finish(self) -> None:
        pass

    def _deliver(self, slot: int, message_id: int, action: str, content: bytes) -> None:
        self._note(slot, "down", content, len(content))
        answer = self.answerers[slot](self.nodes[slot], action, content)
        if answer is not None:
            self._arrived(slot, message_id, answer)


@pytest.fixture
def kept() -> list[Entry]:
    return []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def run(
    grid: ScriptedGrid, log: Path, kept: list[Entry], *, min_clients: int = 2, spec: Spec = SPEC
) -> Outcome:
    with (
        log.open("w") as file,
        Progress(Log(Console(file=file, width=200))) as progress,
        LedgerRecord(log.parent) as record,
    ):
        federation = Federation(
            spec,
            Fleet(grid),
            num_rounds=ROUNDS,
            min_clients=min_clients,
            round_timeout_s=0.2,
            wait_timeout_s=1.0,
            accuracy=lambda weights: float(np.count_nonzero(weights)) / weights.size,
            progress=progress,
            record=record,
        )
        outcome = federation.run()
    kept += read_entries(log.parent)
    return outcome


def test_a_run_of_honest_clients(log: Path, kept: list[Entry]) -> None:
    outcome = run(ScriptedGrid([honest] * 3), log, kept)
    assert outcome.num_votes == [3] * ROUNDS
    assert len(outcome.accuracies) == ROUNDS
    assert outcome.abandoned_rounds == 0
    assert outcome.images == {0: 7, 1: 8, 2: 9}
    assert [entry.round for entry in kept if (entry.slot, entry.direction) == (1, "down")] == list(
        range(ROUNDS + 2)
    )
    assert fedavg_bytes(SPEC, outcome.num_votes) == 8 * (9 * 13 + 90) * 3 * ROUNDS
    assert "round 4/4  clients 3/3" in log.read_text()


def test_steps_of_the_clock_change_nothing(
    log: Path, kept: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is set to next year, or to last year, in the middle of a run."""
    plain = run(ScriptedGrid([honest] * 3), log, [])
    (log.parent / "ledger.jsonl").unlink()
    steps, real = itertools.cycle([0.0, 3e7, -6e7]), time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(steps))
    outcome = run(ScriptedGrid([honest] * 3), log, kept)
    assert outcome.num_votes == plain.num_votes == [3] * ROUNDS
    assert outcome.state.public.hash(SPEC.run_id) == plain.state.public.hash(SPEC.run_id)
    assert 0 <= outcome.seconds < 60
    assert "warning" not in log.read_text()


def bad_at_training(bad: Answerer) -> Answerer:
    return lambda node, action, task: (bad if action == "train" else honest)(node, action, task)


def silent(node: Node, action: str, task: bytes) -> None:
    return None


def garbage(node: Node, action: str, task: bytes) -> bytes:
    return b"\xff\xfe garbage"


def wrong_slot(node: Node, action: str, task: bytes) -> bytes:
    update = node.handle(action, decode(task)).update
    assert update is not None
    return encode(Content(update=replace(update, slot=0)))


def last_round(node: Node, action: str, task: bytes) -> bytes:
    update = node.handle(action, decode(task)).update
    assert update is not None
    return encode(Content(update=replace(update, round=update.round - 1)))


def cut_flips(node: Node, action: str, task: bytes) -> bytes:
    update = node.handle(action, decode(task)).update
    assert update is not None
    return encode(Content(update=replace(update, vote=bytes(update.vote)[:-3])))


def failing(node: Node, action: str, task: bytes) -> bytes:
    return encode(Content(error=Failure(11, "the disk is gone")))


def only_acknowledging(node: Node, action: str, task: bytes) -> bytes:
    return encode(node.handle("query", decode(task)))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (silent, ""),
        (garbage, "client 2: check of a content"),
        (wrong_slot, "client 2: run and slot"),
        (last_round, "client 2: round: got"),
        (cut_flips, "client 2: "),
        (failing, "client 2: says the disk is gone"),
        (only_acknowledging, "client 2: answer to a training task"),
    ],
)
def test_a_bad_client_loses_its_vote_and_nothing_else(
    bad: Answerer, says: str, log: Path, kept: list[Entry]
) -> None:
    with_it = run(ScriptedGrid([honest, honest, bad_at_training(bad)]), log, kept)
    assert with_it.num_votes == [2] * ROUNDS
    assert says in log.read_text()
    without_it = run(ScriptedGrid([honest, honest]), log, kept)
    assert np.array_equal(with_it.state.private[0], without_it.state.private[0])
    assert np.array_equal(with_it.state.public.values, without_it.state.public.values)


def test_a_client_that_loses_its_store_votes_in_the_same_round(log: Path, kept: list[Entry]) -> None:
    grid = ScriptedGrid([honest] * 3)

    def forgetful(node: Node, action: str, task: bytes) -> bytes | None:
        content = decode(task)
        assert content.broadcast is not None
        if action == "train" and content.broadcast.round == 2 and not content.spec and grid.nodes[1] is node:
            grid.nodes[1] = grid.fresh(1)
            grid.answerers[1] = honest
        return honest(grid.nodes[1], action, task)

    grid.answerers[1] = forgetful
    outcome = run(grid, log, kept)
    assert outcome.num_votes == [3] * ROUNDS
    assert "client 1: says no spec of this run" in log.read_text()
    same = run(ScriptedGrid([honest] * 3), log, kept)
    assert np.array_equal(outcome.state.public.values, same.state.public.values)


def test_a_client_that_loses_its_state_gets_a_keyframe_and_not_the_seed(log: Path, kept: list[Entry]) -> None:
    grid = ScriptedGrid([honest] * 3)

    def forgetful(node: Node, action: str, task: bytes) -> bytes | None:
        content = decode(task)
        assert content.broadcast is not None
        if action == "train" and content.broadcast.round == 2:
            store = MemoryStore()
            store.save_spec(SPEC)
            grid.nodes[1] = Node(1, store, lambda _, slot: Jitter(slot))
            grid.answerers[1] = honest
        return honest(grid.nodes[1], action, task)

    grid.answerers[1] = forgetful
    outcome = run(grid, log, kept)
    assert outcome.num_votes == [3] * ROUNDS
    assert "client 1: says base round" in log.read_text()
    assert [entry.round for entry in kept if "spec" in entry.payload_by_kind] == [0, 0, 0]
    same = run(ScriptedGrid([honest] * 3), log, kept)
    assert np.array_equal(outcome.state.public.values, same.state.public.values)


def test_a_client_with_other_weights_never_votes(log: Path, kept: list[Entry]) -> None:
    def other_weights(node: Node, action: str, task: bytes) -> bytes:
        answer = node.handle(action, decode(task))
        if answer.ack is not None:
            answer = replace(answer, ack=replace(answer.ack, weights_sha256=bytes(32)))
        return encode(answer)

    outcome = run(ScriptedGrid([honest, honest, other_weights]), log, kept)
    assert outcome.num_votes == [2] * ROUNDS
    assert "client 2: hash of the weights" in log.read_text()


def test_a_round_without_enough_votes_is_repeated_from_the_same_state(log: Path, kept: list[Entry]) -> None:
    failures = iter([True, True])

    def sometimes(node: Node, action: str, task: bytes) -> bytes | None:
        if action == "train" and next(failures, False):
            return failing(node, action, task)
        return honest(node, action, task)

    outcome = run(ScriptedGrid([honest, sometimes]), log, kept)
    assert outcome.abandoned_rounds == 2
    assert outcome.num_votes == [2] * ROUNDS
    smooth = run(ScriptedGrid([honest] * 2), log, kept)
    assert np.array_equal(outcome.state.private[0], smooth.state.private[0])


def test_a_run_that_gets_nowhere_ends(log: Path, kept: list[Entry]) -> None:
    with pytest.raises(RemoteError, match="asked 6 times in one round: 1 of at least 2 votes"):
        run(ScriptedGrid([honest, bad_at_training(failing)]), log, kept)


def test_an_answer_counts_only_from_the_slot_that_was_asked(log: Path, kept: list[Entry]) -> None:
    grid = ScriptedGrid([honest, honest, honest])

    def steal(node: Node, action: str, task: bytes) -> bytes | None:
        """Answers everybody's tasks before they can."""
        for number in list(grid._pending):
            grid._arrived(2, number, b"stolen")
        return honest(node, action, task)

    grid.answerers[0] = steal
    assert run(grid, log, kept).num_votes == [3] * ROUNDS


def test_clients_that_do_not_come_in_time_are_not_waited_for(log: Path, kept: list[Entry]) -> None:
    with pytest.raises(NetworkError, match=r"waited 1 s for clients: got 1 \[0\]; wanted 2"):
        run(ScriptedGrid([honest]), log, kept)
    assert "waiting for clients: 1 of 2 here (number 0)" in log.read_text()


def test_a_vote_is_kept_while_the_others_are_asked_again(log: Path, kept: list[Entry]) -> None:
    asked = []
    failures = iter([True, True])

    def counting(node: Node, action: str, task: bytes) -> bytes | None:
        if action == "train":
            asked.append(task)
        return honest(node, action, task)

    def sometimes(node: Node, action: str, task: bytes) -> bytes | None:
        if action == "train" and next(failures, False):
            return failing(node, action, task)
        return honest(node, action, task)

    run(ScriptedGrid([counting, sometimes]), log, kept)
    assert len(asked) == ROUNDS
