"""How a client that was away comes back: by a merged change or a keyframe, and what a server keeps for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemn.federation.moves import encode_moves
from pemn.federation.public import PublicState
from pemn.methods import Server, ServerState
from pemn.wire.messages import Broadcast, Content, decode, encode
from pemn.wire.spec import Spec
from tests.networks import model_spec, run_spec
from tests.property.federation import MODEL, World, specs

SPEC = run_spec(model_spec((60, 60), (10, 60)), step=8192)
SERVER = Server.of(SPEC)


def broadcast(server: Server, state: ServerState, slot: int) -> Broadcast:
    message = server.tasks(state, [slot])[slot].broadcast
    assert message is not None
    return message


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The base rounds of all changes that are coded, in turn."""
    rounds: list[int] = []
    original = Server._broadcast

    def count(server: Server, state: ServerState, base: PublicState) -> Broadcast:
        rounds.append(base.round)
        return original(server, state, base)

    monkeypatch.setattr(Server, "_broadcast", count)
    return rounds


def near(round_: int) -> PublicState:
    """Seven weights have moved by a step since round 0."""
    return PublicState(round_, (np.arange(SPEC.model.num_params) % 600 == 5).astype(np.int8))


def far(round_: int) -> PublicState:
    """Every weight has moved far since round 0."""
    k = np.random.default_rng(1).integers(-100, 100, SPEC.model.num_params)
    return PublicState(round_, k.astype(np.int8))


def state_of(now: PublicState, past: PublicState, known: dict[int, int]) -> ServerState:
    first = SERVER.start()
    return replace(first, public=now, past={0: first.public, past.round: past}, known=known)


def test_a_keyframe_is_taken_where_it_is_shorter(coded: list[int]) -> None:
    """What was learnt since has gone back to where the seed began."""
    state = state_of(near(8), far(5), {0: 5, 1: 5})
    message = broadcast(SERVER, state, 0)
    assert message.base_round == 0
    assert coded == [5, 0]
    world = World(SPEC)
    for base in (far(5), SERVER.start().public):
        node = world.fresh(0, base, spec=SPEC)
        ack = node.handle("query", decode(encode(Content(broadcast=message)))).ack
        assert ack is not None
        assert ack.state_hash == near(8).hash(SPEC.run_id)
    tasks = SERVER.tasks(state, range(3))  # slot 2 is new
    assert len({id(task.broadcast) for task in tasks.values()}) == 1
    assert sorted(coded[2:]) == [0, 5]  # no keyframe twice


def test_a_merged_change_is_taken_where_it_is_shorter() -> None:
    now = PublicState(8, far(5).values + near(8).values)
    assert broadcast(SERVER, state_of(now, far(5), {0: 5}), 0).base_round == 5


@pytest.mark.parametrize("known", [7, 8])
def test_a_client_that_missed_nothing_costs_no_keyframe(known: int, coded: list[int]) -> None:
    """It gets the last change, or nothing, even where a keyframe would be shorter: nobody codes one to find out."""
    state = state_of(near(8), far(7), {0: known})
    assert broadcast(SERVER, state, 0).base_round == known
    assert coded == [known]


@settings(max_examples=25)
@given(specs(), st.sets(st.integers(0, 4)))
def test_a_catch_up_is_the_shorter_of_merged_change_and_keyframe(spec: Spec, voting: set[int]) -> None:
    """From any base, with and without votes in the rounds between, it leads to the same state."""
    num_rounds = 5
    world = World(spec, late_rounds=num_rounds)  # keeps all states
    for number in range(num_rounds):
        if number in voting:
            for slot in range(spec.data.num_slots):
                world.deliver(slot, world.train(slot))
        world.commit()
    for base, k in world.states.items():
        state = replace(world.state, known={0: base})
        message = broadcast(world.server, state, 0)
        lengths = {
            round_: len(encode_moves(world.states[round_], world.state.public.values, world.levels))
            for round_ in {0, base}
        }
        assert len(message.change) == lengths[message.base_round]
        if base < num_rounds - 1:  # a client that missed none is sent the last change
            assert len(message.change) == min(lengths.values())
        node = world.fresh(0, PublicState(base, k), spec=spec)
        assert node.handle("query", decode(encode(Content(broadcast=message)))).ack is not None


def test_a_merged_catch_up_costs_less_than_the_rounds_it_replaces() -> None:
    world = World(SPEC)
    for _ in range(4):
        for slot in (0, 1):
            world.deliver(slot, world.train(slot))
        world.commit()
    world.bring_up(2)
    parts = 0
    for base_round in (4, 5, 6):
        for slot in (0, 1):
            world.deliver(slot, world.train(slot))
        world.commit()
        part = broadcast(world.server, world.state, 0)
        assert part.base_round == base_round
        parts += len(part.change)
    merged = broadcast(world.server, world.state, 2)
    assert merged.base_round == 4
    assert 0 < len(merged.change) < parts


def test_clients_with_one_state_share_one_broadcast_and_none_is_coded_twice(coded: list[int]) -> None:
    world = World(run_spec(MODEL, num_slots=3))
    for slot in range(3):
        world.deliver(slot, world.train(slot))
    world.commit()
    coded.clear()
    tasks = world.server.tasks(world.state, range(3))
    assert len({id(task.broadcast) for task in tasks.values()}) == 1
    assert coded == [0]


def test_the_spec_is_sent_once() -> None:
    world = World(run_spec(MODEL))
    assert world.server.tasks(world.state, [1])[1].spec is not None
    world.deliver(1, world.train(1))
    world.commit()
    assert world.server.tasks(world.state, [1])[1].spec is None
    assert world.server.tasks(world.state, [0])[0].spec is not None


def test_past_states_are_kept_only_while_somebody_needs_them() -> None:
    world = World(run_spec(MODEL), past_rounds=3)
    assert not world.state.past

    def next_round(*slots: int) -> list[int]:
        for slot in slots:
            world.deliver(slot, world.train(slot))
        world.commit()
        return sorted(world.state.past)

    assert [next_round(0, 1) for _ in range(3)] == [[0], [0, 1], [0, 2]]
    assert next_round(0) == [0, 2, 3]  # 2 for client 1
    assert next_round(0) == [0, 2, 4]
    assert next_round(0) == [0, 5]  # client 1 has been away for too long: it will get a keyframe
    assert broadcast(world.server, world.state, 1).base_round == 0
    world.bring_up(1)


def test_past_states_are_kept_for_late_votes() -> None:
    world = World(run_spec(MODEL), late_rounds=2)
    for number in range(5):
        world.commit()
        assert sorted(world.state.past) == sorted({0, *range(max(number - 1, 0), number + 1)})
