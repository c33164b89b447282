"""Random federations, without a socket: a server, clients that come, go and forget, and messages as bytes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.errors import MalformedFrame, MissingSpec, OutOfSync, RemoteError, WrongRound
from pemn.federation.levels import HIGHEST, LOWEST, Levels
from pemn.federation.public import PublicState
from pemn.methods.mask import MaskClient, MaskServer, ServerState, Vote
from pemn.wire.messages import Content, Metrics, Update, decode, encode
from pemn.wire.spec import Spec
from tests.networks import model_spec, run_spec

MODEL = model_spec((9, 13), (10, 9))


@dataclass
class Jitter:
    """A trainer without a network: it moves every probability at random."""

    slot: int
    spread: float = 6000.0

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        rng = np.random.default_rng([self.slot, round_])
        moved = q.astype(np.float64) + rng.normal(0, self.spread, q.size)
        return moved.clip(LOWEST, HIGHEST).astype(np.uint16), Metrics(10, 500, 3)


@dataclass
class Device:
    """A client with its store."""

    spec: Spec
    slot: int
    state: PublicState | None = None
    has_spec: bool = False

    def answer(self, task: bytes, train: bool = True) -> bytes:
        content = decode(task)
        assert content.broadcast is not None
        if content.spec is not None:
            self.has_spec, self.state = True, None
            assert content.spec == self.spec
        if not self.has_spec:
            raise MissingSpec("no spec")
        client = MaskClient.of(self.spec, self.slot)
        self.state = client.apply(self.state or client.start(), content.broadcast)
        if train:
            return encode(Content(update=client.train(self.state, Jitter(self.slot))))
        return encode(Content(ack=client.acknowledge(self.state)))


def vote(server: MaskServer, state: ServerState, slot: int, answer: bytes) -> Vote:
    update = decode(answer).update
    assert update is not None
    return server.read_vote(state, slot, update)


@dataclass
class World:
    """A run with its devices."""

    spec: Spec
    state: ServerState = field(init=False)
    devices: list[Device] = field(init=False)

    def __post_init__(self) -> None:
        self.server = MaskServer.of(self.spec)
        self.state = self.server.start()
        self.devices = [Device(self.spec, slot) for slot in range(self.spec.data.num_slots)]

    def round(self, slots: list[int]) -> None:
        votes = {}
        for slot in slots:
            for _ in range(2):
                task = encode(self.server.tasks(self.state, [slot])[slot])
                try:
                    answer = self.devices[slot].answer(task)
                except MissingSpec:
                    self.state = self.server.forget(self.state, slot)
                    continue
                except OutOfSync:
                    self.state = self.server.rewind(self.state, slot)
                    continue
                votes[slot] = vote(self.server, self.state, slot, answer)
                break
        self.state = self.server.commit(self.state, votes)

    def finish(self) -> None:
        for device in self.devices:
            task = encode(self.server.tasks(self.state, [device.slot])[device.slot])
            ack = decode(device.answer(task, train=False)).ack
            assert ack is not None
            self.server.check_ack(self.state, device.slot, ack, self.server.weights_sha256(self.state))
            self.state = self.server.seen(self.state, device.slot)


@settings(max_examples=25)
@given(
    st.lists(st.sets(st.integers(0, 3), max_size=4), min_size=1, max_size=7),
    st.sampled_from([4096, 16384, 32768]),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from([(1, 1), (1, 3), (5, 2)]),
)
def test_whoever_misses_whatever_ends_in_the_same_state(
    rounds: list[set[int]], step: int, spread: float, eta: tuple[int, int]
) -> None:
    world = World(run_spec(MODEL, num_slots=4, step=step, spread=spread, eta=eta))
    for slots in rounds:
        world.round(sorted(slots))
    world.finish()  # checks the hash of every device's state and weights
    for device in world.devices:
        assert device.state is not None
        assert np.array_equal(device.state.k, world.state.public.k)
        assert device.state.round == len(rounds)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(0, 5))
def test_a_client_that_forgets_is_brought_up_again(forgetful: list[int], seed: int) -> None:
    world = World(run_spec(MODEL))
    rng = random.Random(seed)
    for slot in forgetful:
        world.round([0, 1, 2])
        device = world.devices[slot]
        if rng.random() < 0.5:
            device.has_spec, device.state = False, None  # the whole store
        else:
            device.state = None  # the public state alone
    world.round([0, 1, 2])
    assert set(world.state.known) == {0, 1, 2}
    world.finish()


def test_the_order_of_votes_changes_nothing() -> None:
    worlds = [World(run_spec(MODEL)) for _ in range(2)]
    for round_ in range(4):
        order = [0, 1, 2]
        worlds[0].round(order)
        random.Random(round_).shuffle(order)
        worlds[1].round(order)
    assert np.array_equal(worlds[0].state.p_hat, worlds[1].state.p_hat)
    assert np.array_equal(worlds[0].state.public.k, worlds[1].state.public.k)


def test_a_merged_catch_up_costs_less_than_the_rounds_it_replaces() -> None:
    spec = run_spec(model_spec((60, 60), (10, 60)), step=8192)
    world = World(spec)
    world.round([0, 1, 2])
    parts = 0
    for _ in range(6):
        task = world.server.tasks(world.state, [0])[0]
        assert task.broadcast is not None
        parts += len(task.broadcast.moves)
        world.round([0, 1])
    merged = world.server.tasks(world.state, [2])[2].broadcast
    assert merged is not None
    assert merged.base_round == 0
    assert 0 < len(merged.moves) < parts


def test_the_spec_is_sent_once() -> None:
    world = World(run_spec(MODEL))
    assert world.server.tasks(world.state, [1])[1].spec is not None
    world.round([1])
    assert world.server.tasks(world.state, [1])[1].spec is None
    assert world.server.tasks(world.state, [0])[0].spec is not None


def test_a_broadcast_that_was_applied_changes_nothing_more() -> None:
    world = World(run_spec(MODEL))
    world.round([0, 1, 2])
    task = encode(world.server.tasks(world.state, [0])[0])
    first = world.devices[0].answer(task)
    kept = world.devices[0].state
    assert world.devices[0].answer(task) == first
    assert world.devices[0].state is kept


def test_past_states_are_kept_only_while_somebody_needs_them() -> None:
    world = World(run_spec(MODEL))
    for _ in range(6):
        world.round([0, 1])
    assert sorted(world.state.past) == [0, 5]
    world.round([0])
    assert sorted(world.state.past) == [0, 5, 6]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"run_id": 1}, WrongRound),
        ({"round": 1}, WrongRound),
        ({"round": 3}, WrongRound),
        ({"slot": 1}, WrongRound),
        ({"state_hash": b"?" * 16}, OutOfSync),
        ({"flips": b"\x00"}, MalformedFrame),
    ],
)
def test_an_update_counts_for_its_run_round_slot_and_state_alone(
    change: dict[str, object], error: type[RemoteError]
) -> None:
    world = World(run_spec(MODEL))
    world.round([0, 1, 2])
    update = decode(world.devices[0].answer(encode(world.server.tasks(world.state, [0])[0]))).update
    assert update is not None
    assert world.server.read_vote(world.state, 0, update).metrics == Metrics(10, 500, 3)
    forged = Update(**{**vars(update), **change})
    with pytest.raises(error):
        world.server.read_vote(world.state, 0, forged)


def test_a_client_with_other_weights_is_found_out() -> None:
    world = World(run_spec(MODEL))
    world.round([0, 1, 2])
    device = world.devices[0]
    ack = decode(device.answer(encode(world.server.tasks(world.state, [0])[0]), train=False)).ack
    assert ack is not None
    forged = type(ack)(**{**vars(ack), "weights_sha256": b"\0" * 32})
    with pytest.raises(OutOfSync, match="hash of the weights"):
        world.server.check_ack(world.state, 0, forged, world.server.weights_sha256(world.state))


def test_a_corrupt_broadcast_is_noticed() -> None:
    world = World(run_spec(MODEL))
    world.round([0, 1, 2])
    task = world.server.tasks(world.state, [0])[0]
    assert task.broadcast is not None
    forged = type(task.broadcast)(**{**vars(task.broadcast), "state_hash": b"\0" * 16})
    with pytest.raises(OutOfSync, match="hash of the public state"):
        world.devices[0].answer(encode(Content(broadcast=forged)))


def test_the_shared_mask_is_the_public_states() -> None:
    world = World(run_spec(MODEL))
    for _ in range(3):
        world.round([0, 1, 2])
    levels = Levels(world.spec.protocol, MODEL.seed, MODEL.num_params)
    wanted = levels.at(world.state.public.k) > 32768
    assert np.array_equal(world.server.mask(world.state).bits(), wanted)
