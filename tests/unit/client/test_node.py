"""A client's answers, and what it does when it is out of step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pemn.errors import MalformedFrame, MissingSpec, OutOfSync, WrongSpec
from pemn.methods import Server, ServerState, Trainer
from pemn.wire.messages import Content, Metrics, Update
from pemn.wire.protocols import StcProtocol
from pemn.wire.spec import Spec
from pemn_client.node import QUERY, TRAIN, Node
from pemn_client.store import FileStore
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((9, 7), (10, 9)))


class Still:
    """A trainer that leaves everything as it is."""

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        return q.copy(), Metrics(1, 2, 3)


def make_trainer(spec: Spec, slot: int) -> Trainer:
    if spec.data.dataset != "digits":
        raise WrongSpec("data set", got="digits", wanted=spec.data.dataset)
    return Still()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(1, FileStore(tmp_path), make_trainer)


def first_state() -> tuple[Server, ServerState]:
    server = Server.of(SPEC)
    return server, server.start()


def test_it_acknowledges_and_votes(node: Node) -> None:
    server, state = first_state()
    ack = node.handle(QUERY, server.tasks(state, [1])[1]).ack
    assert ack is not None
    server.check_ack(state, 1, ack, server.weights_sha256(state))
    state = server.seen(state, 1)
    update = node.handle(TRAIN, server.tasks(state, [1])[1]).update
    assert update is not None
    vote = server.read_vote(state, 1, update)
    assert not vote.content.mask.any()
    assert vote.metrics == Metrics(1, 2, 3)


def test_without_the_spec_it_asks_for_it(node: Node) -> None:
    server, state = first_state()
    answer = node.handle(TRAIN, server.tasks(server.seen(state, 1), [1])[1])
    assert answer.error is not None
    assert answer.error.code == MissingSpec.code


def test_a_new_process_goes_on_from_the_store(node: Node, tmp_path: Path) -> None:
    server, state = first_state()
    node.handle(QUERY, server.tasks(state, [1])[1])
    state = server.commit(server.seen(state, 1), server.open())
    again = Node(1, FileStore(tmp_path), make_trainer)
    assert server.tasks(state, [1])[1].spec is None
    assert again.handle(QUERY, server.tasks(state, [1])[1]).ack is not None
    kept = FileStore(tmp_path).load()
    assert kept is not None
    assert kept[1] is not None
    assert kept[1].round == 1


def test_a_server_that_believes_too_much_is_told(node: Node) -> None:
    server, state = first_state()
    node.handle(QUERY, server.tasks(state, [1])[1])
    ahead = server.commit(state, server.open())
    ahead = server.commit(server.seen(ahead, 1), server.open())
    answer = node.handle(TRAIN, server.tasks(ahead, [1])[1])
    assert answer.error is not None
    assert answer.error.code == OutOfSync.code
    assert node.handle(QUERY, server.tasks(server.rewind(ahead, 1), [1])[1]).ack is not None


def test_a_corrupt_broadcast_is_answered_and_forgotten(node: Node) -> None:
    server, state = first_state()
    node.handle(QUERY, server.tasks(state, [1])[1])
    state = server.commit(server.seen(state, 1), server.open())
    task = server.tasks(state, [1])[1]
    assert task.broadcast is not None
    corrupt = replace(task, broadcast=replace(task.broadcast, change=b"\xff\xff"))
    answer = node.handle(TRAIN, corrupt)
    assert answer.error is not None
    assert answer.error.code == OutOfSync.code
    assert node.handle(TRAIN, task).update is not None


@pytest.mark.parametrize("new_process", [False, True])
@pytest.mark.parametrize("of_this_run", [False, True])
def test_a_refused_task_leaves_the_store_as_it_was(
    node: Node, tmp_path: Path, new_process: bool, of_this_run: bool
) -> None:
    server, state = first_state()
    node.handle(QUERY, server.tasks(state, [1])[1])
    state = server.commit(server.seen(state, 1), server.open())
    node.handle(QUERY, server.tasks(state, [1])[1])
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    spec = SPEC if of_this_run else replace(SPEC, run_id=5)
    task = server.tasks(server.forget(state, 1), [1])[1]
    assert task.broadcast is not None
    broadcast = replace(task.broadcast, run_id=spec.run_id, round=9, change=b"\xff")
    where = Node(1, FileStore(tmp_path), make_trainer) if new_process else node
    answer = where.handle(QUERY, Content(spec=spec, broadcast=broadcast))
    assert answer.error is not None
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    state = server.commit(server.seen(state, 1), server.open())
    assert where.handle(QUERY, server.tasks(state, [1])[1]).ack is not None


def test_a_spec_that_it_has_changes_nothing(node: Node, tmp_path: Path) -> None:
    server, state = first_state()
    first = server.tasks(state, [1])[1]
    node.handle(QUERY, first)
    state = server.commit(server.seen(state, 1), server.open())
    task = server.tasks(state, [1])[1]
    node.handle(QUERY, task)
    again = Node(1, FileStore(tmp_path), make_trainer)
    assert again.handle(QUERY, replace(task, spec=first.spec)).ack is not None
    state = server.commit(server.seen(state, 1), server.open())
    assert again.handle(QUERY, server.tasks(state, [1])[1]).ack is not None


def test_a_run_that_does_not_fit_is_not_kept(node: Node, tmp_path: Path) -> None:
    foreign = replace(SPEC, data=replace(SPEC.data, dataset="cifar10"))
    server = Server.of(foreign)
    with pytest.raises(WrongSpec, match="data set: got digits; wanted cifar10"):
        node.handle(QUERY, server.tasks(server.start(), [1])[1])
    assert FileStore(tmp_path).load() is None


def test_a_slot_that_the_run_does_not_have(tmp_path: Path) -> None:
    server, state = first_state()
    with pytest.raises(WrongSpec, match="slot: got 3"):
        Node(3, FileStore(tmp_path), make_trainer).handle(QUERY, server.tasks(state, [3])[3])


def test_a_task_is_more_than_nothing(node: Node) -> None:
    with pytest.raises(MalformedFrame, match="task without a broadcast"):
        node.handle(TRAIN, Content())


class Moving:
    """A trainer of weights that moves all of them, the same way in every round."""

    def train(self, start: NDArray[np.float32], round_: int) -> tuple[NDArray[np.float32], Metrics]:
        moved = np.linspace(-1, 1, start.size, dtype=np.float32)
        return start + moved, Metrics(1, 2, 3)


def test_a_round_that_is_asked_for_twice_is_the_same_vote_and_owes_once(tmp_path: Path) -> None:
    spec = replace(SPEC, protocol=StcProtocol(0.0, 0.25), method="stc")
    server = Server.of(spec)
    state, first = server.start(), None

    def train() -> Update:
        """By a process that has just started."""
        node = Node(1, FileStore(tmp_path), lambda spec, slot: Moving())
        update = node.handle(TRAIN, server.tasks(state, [1])[1]).update
        assert update is not None
        return update

    for round_ in (1, 2):
        one = train()
        assert train() == one
        first = first or one
        memory = FileStore(tmp_path).load_memory(spec)
        assert memory is not None
        assert memory.round == round_
        assert (memory.earlier is None) == (round_ == 1)
        ballot = server.open()
        state = server.commit(server.take_vote(state, ballot, 1, one), ballot)
    assert first is not None
    assert one.vote != first.vote  # it began with what it owed
