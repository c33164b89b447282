"""Rounds that close with the votes that come: over-selection, drop-out, quorum."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pemn.config import resolve
from pemn.errors import RemoteError
from pemn.federation.levels import HIGHEST, LOWEST
from pemn.ledger import Entry
from pemn.wire.messages import Metrics, Update
from pemn_server.flower import Fleet, run_server_app
from pemn_server.log import Log
from pemn_server.outcome import Outcome
from pemn_server.progress import Progress
from pemn_server.record import Record
from pemn_server.run import Federation
from pemn_server.settings import SimulateSettings
from pemn_server.simulation import Clients, InProcessGrid, simulate
from tests.networks import model_spec, run_spec

NUM_CLIENTS, GOAL, ASKED = 100, 30, 39


class Jitter:
    """A trainer without a network."""

    def __init__(self, slot: int) -> None:
        self._slot = slot

    def train(self, start: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        moved = start + np.random.default_rng([self._slot, round_]).normal(0, 5000, start.size)
        return moved.clip(LOWEST, HIGHEST).astype(np.uint16), Metrics(7, 1, 1)


class Votes(Record):
    """Remembers who has voted in which round, and what messages have cost."""

    def __init__(self) -> None:
        super().__init__()
        self.voters: dict[int, list[int]] = {}
        self.entries: list[Entry] = []

    def keep_vote(self, round_: int, slot: int, update: Update) -> None:
        self.voters.setdefault(round_, []).append(slot)

    def keep_end(self, round_: int, entries: Any) -> None:
        self.entries += entries


def run(
    num_rounds: int, drop_out: float, *, min_clients: int = 27, over_select: float = 1.3
) -> tuple[Outcome, Votes]:
    spec = run_spec(model_spec((4, 6), (10, 4)), num_slots=NUM_CLIENTS)
    clients = Clients(lambda spec, slot: Jitter(slot), NUM_CLIENTS)
    grid = InProcessGrid(clients, drop_out=drop_out, seed=spec.model.seed)
    votes, outcomes = Votes(), list[Outcome]()

    def run_rounds(fleet: Fleet) -> None:
        federation = Federation(
            spec,
            fleet,
            num_rounds=num_rounds,
            cohort=GOAL,
            over_select=over_select,
            min_clients=min_clients,
            round_timeout_s=None,
            wait_timeout_s=None,
            accuracy=lambda _: 0.0,
            progress=Progress(Log(Console(file=io.StringIO()))),
            record=votes,
        )
        outcomes.append(federation.run())

    run_server_app(grid, run_rounds)
    return outcomes[0], votes


@pytest.mark.parametrize("num_rounds", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_rounds_with_a_tenth_of_the_clients_lost(num_rounds: int) -> None:
    """Of a thousand rounds at most one must be repeated for want of a quorum (27 of 30, 39 asked)."""
    outcome, votes = run(num_rounds, 0.1)
    assert outcome.abandoned_rounds <= num_rounds / 1000
    assert max(outcome.num_votes) == GOAL
    assert min(outcome.num_votes) >= 27
    assert outcome.num_votes.count(GOAL) > 0.9 * num_rounds  # the others were closed without the last few
    assert [len(set(voters)) for voters in votes.voters.values()] == outcome.num_votes


def test_the_first_to_answer_count_and_nobody_is_favoured() -> None:
    outcome, votes = run(60, 0.0)
    assert outcome.num_votes == [GOAL] * 60
    counts = np.bincount([slot for voters in votes.voters.values() for slot in voters], minlength=NUM_CLIENTS)
    assert counts.min() > 4  # 18 in the mean, 3.5 the standard deviation
    assert counts.max() < 32
    down = [entry.slot for entry in votes.entries if (entry.round, entry.direction) == (7, "down")]
    up = [
        entry.slot
        for entry in votes.entries
        if entry.round == 7 and entry.direction == "up" and entry.messages
    ]
    assert len([slot for slot in down if slot in up]) == GOAL
    messages = sum(e.messages for e in votes.entries if (e.round, e.direction) == (7, "down"))
    assert messages == ASKED


def test_a_round_without_a_quorum_is_repeated_and_never_half_applied() -> None:
    """Most clients are lost: votes that came stay good, the others are asked again."""
    outcome, votes = run(8, 0.5, min_clients=30)
    assert outcome.abandoned_rounds > 2
    assert outcome.num_votes == [GOAL] * 8
    assert all(len(voters) == len(set(voters)) for voters in votes.voters.values())
    with pytest.raises(RemoteError, match="clients were asked 6 times in one round: "):
        run(20, 0.99)


@pytest.mark.parametrize("method", ["mask", "fedavg"])
def test_a_simulation_with_lost_clients_goes_on_bit_for_bit(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        *("--dataset", "digits", "--model", "mlp-16", "--method", method, "--clients", "10", "--seed", "5"),
        *("--participation", "0.4", "--over-select", "1.5", "--drop-out", "0.4", "--min-clients", "2"),
        *("--rounds", "6", "--epochs", "1", "--threads", "1"),
    ]

    def summary(folder: Path, *more: str) -> dict[str, Any]:
        settings = resolve(
            SimulateSettings,
            [*options, "--run-dir", str(folder), *more],
            prog="test",
            env_prefix="PEMN_TEST_",
        ).settings
        simulate(settings, folder, Log(Console(file=io.StringIO())))
        found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        del found["seconds"], found["state_hash"]
        return found

    whole = summary(tmp_path / "whole")
    assert whole["client_rounds"] < 4 * 6
    keep = Federation._close

    def stop(self: Federation, outcome: Outcome, ballot: Any) -> None:
        if outcome.state.public.round == 3:
            raise KeyboardInterrupt
        keep(self, outcome, ballot)

    with monkeypatch.context() as patch:
        patch.setattr(Federation, "_close", stop)
        with pytest.raises(KeyboardInterrupt):
            summary(tmp_path / "parts")
    assert summary(tmp_path / "parts", "--resume") == whole
