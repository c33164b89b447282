"""How a client that was away comes back: by a merged change or a keyframe, and what a server keeps for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemn.federation.moves import encode_moves
from pemn.federation.public import PublicState
from pemn.methods.mask import MaskServer
from pemn.wire.messages import Content, decode, encode
from pemn.wire.spec import Spec
from tests.networks import model_spec, run_spec
from tests.property.federation import MODEL, World, specs


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
        message = world.server.tasks(state, [0])[0].broadcast
        assert message is not None
        lengths = {
            round_: len(encode_moves(world.states[round_], world.state.public.k, world.levels))
            for round_ in {0, base}
        }
        assert len(message.moves) == lengths[message.base_round]
        if base < num_rounds - 1:  # a client that missed none is sent the last change
            assert len(message.moves) == min(lengths.values())
        node = world.fresh(0, PublicState(base, k), spec=spec)
        assert node.handle("query", decode(encode(Content(broadcast=message)))).ack is not None


def test_a_merged_catch_up_costs_less_than_the_rounds_it_replaces() -> None:
    world = World(run_spec(model_spec((60, 60), (10, 60)), step=8192))
    for slot in range(3):
        world.deliver(slot, world.train(slot))
    world.commit()
    parts = 0
    for _ in range(6):
        task = world.server.tasks(world.state, [0])[0]
        assert task.broadcast is not None
        parts += len(task.broadcast.moves)
        for slot in (0, 1):
            world.deliver(slot, world.train(slot))
        world.commit()
    merged = world.server.tasks(world.state, [2])[2].broadcast
    assert merged is not None
    assert merged.base_round == 0
    assert 0 < len(merged.moves) < parts


def test_clients_with_one_state_share_one_broadcast_and_none_is_coded_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(run_spec(MODEL, num_slots=3))
    for slot in range(3):
        world.deliver(slot, world.train(slot))
    world.commit()
    coded = []
    broadcast = MaskServer._broadcast
    monkeypatch.setattr(
        MaskServer,
        "_broadcast",
        lambda *args: coded.append(args[2].round) or broadcast(*args),  # type: ignore[func-returns-value]
    )
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

    def next_round(*slots: int) -> list[int]:
        for slot in slots:
            world.deliver(slot, world.train(slot))
        world.commit()
        return sorted(world.state.past)

    assert [next_round(0, 1) for _ in range(3)] == [[0], [0, 1], [0, 2]]
    assert next_round(0) == [0, 2, 3]  # 2 for client 1
    assert next_round(0) == [0, 2, 4]
    assert next_round(0) == [0, 5]  # client 1 has been away for too long: it will get a keyframe
    message = world.server.tasks(world.state, [1])[1].broadcast
    assert message is not None
    assert message.base_round == 0
    world.bring_up(1)


def test_past_states_are_kept_for_late_votes() -> None:
    world = World(run_spec(MODEL), late_rounds=2)
    for number in range(5):
        world.commit()
        assert sorted(world.state.past) == sorted({0, *range(max(number - 1, 0), number + 1)})
