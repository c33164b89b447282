"""What is true of a federation, whoever comes, goes, forgets, repeats itself or is late."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.errors import MalformedFrame, OutOfSync, WrongRound
from pemn.federation.flips import Draw, Flips, encode_flips
from pemn.federation.levels import HALF, Levels
from pemn.federation.public import PublicState
from pemn.methods import encode_state
from pemn.wire.messages import Content, Metrics, Update, decode, encode
from pemn.wire.spec import Spec
from tests.networks import run_spec
from tests.property.federation import MODEL, UNIT, World, of_round, specs, update_of

EVENTS = (
    "away",
    "away",
    "vote",
    "vote",
    "vote",
    "twice",
    "lost",
    "query",
    "late",
    "new",
    "stateless",
    "corrupt",
    "old",
)


def play(world: World, event: str, slot: int, rng: random.Random) -> bytes | None:
    """What happens to a client in a round; returns its update if it has one."""
    if event == "away":
        return None
    if event == "query":
        world.bring_up(slot)
        return None
    if event == "new":
        world.nodes[slot] = world.fresh(slot)
    elif event == "stateless":
        world.nodes[slot] = world.fresh(slot, spec=world.spec)
    elif event == "corrupt":
        world.corrupt(slot, rng)
    elif event == "old":
        round_ = rng.choice(sorted(world.states))
        world.nodes[slot] = world.fresh(slot, PublicState(round_, world.states[round_]), spec=world.spec)
    return world.train(slot)


@settings(max_examples=30)
@given(
    specs(),
    st.integers(0, 3),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 3.0]),
    st.lists(st.lists(st.sampled_from(EVENTS), min_size=5, max_size=5), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_all_end_with_what_the_definitions_say(
    spec: Spec,
    late_rounds: int,
    past_rounds: int,
    spread: float,
    rounds: list[list[str]],
    rng: random.Random,
) -> None:
    """`World` holds every round's p_hat and k, and who may vote, against a second computation."""
    world = World(spec, late_rounds, past_rounds, spread)
    late: list[tuple[int, int, bytes]] = []  # when, who, what
    for number, events in enumerate(rounds):
        inbox = [(slot, answer) for when, slot, answer in late if when == number]
        for slot in range(spec.data.num_slots):
            answer = play(world, events[slot], slot, rng)
            if answer is None or events[slot] == "lost":
                continue
            if events[slot] == "late":
                late.append((number + rng.randint(1, 4), slot, answer))
            else:
                inbox += [(slot, answer)] * (2 if events[slot] == "twice" else 1)
        rng.shuffle(inbox)
        for slot, answer in inbox:
            world.deliver(slot, answer)
        world.commit(killed=rng.random() < 0.5, rng=rng)
    for slot in range(spec.data.num_slots):
        world.bring_up(slot)  # checks the hashes of state and weights
        state = world.nodes[slot]._state
        assert state is not None
        assert state.round == len(rounds)
        assert np.array_equal(state.values, world.state.public.values)
    mask = world.levels.at(world.state.public.values) > HALF
    assert np.array_equal(world.levels.mask(world.state.public.values).bits(), mask)


@settings(max_examples=15)
@given(
    specs(), st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=5), st.randoms(use_true_random=False)
)
def test_the_order_of_votes_changes_nothing(spec: Spec, rounds: list[set[int]], rng: random.Random) -> None:
    worlds = [World(spec), World(spec)]
    for voters in rounds:
        slots = [slot for slot in range(spec.data.num_slots) if slot in voters]
        for world in worlds:
            rng.shuffle(slots)
            for slot in slots:
                world.deliver(slot, world.train(slot))
            world.commit()
    first, second = (encode_state(world.server, world.state) for world in worlds)
    assert first == second


def test_a_late_vote_counts_once_and_takes_the_place_of_the_next() -> None:
    world = World(run_spec(MODEL), late_rounds=1)
    late = world.train(0)
    world.commit()
    fresh = world.train(0)
    assert world.deliver(0, late)
    assert not world.deliver(0, late)
    assert not world.deliver(0, fresh)
    world.commit()
    assert not world.deliver(0, late)
    assert world.deliver(0, fresh)  # it is late by now, and has not counted
    world.commit()
    assert world.voted == {0: 2}
    assert not world.deliver(0, late)
    assert not world.deliver(0, fresh)


def test_a_late_vote_is_no_news_of_what_a_client_has() -> None:
    world = World(run_spec(MODEL), late_rounds=2)
    late = world.train(0)
    world.deliver(1, world.train(1))
    world.commit()
    world.bring_up(0)
    assert world.deliver(0, late)
    world.commit()
    message = world.server.tasks(world.state, [0])[0].broadcast
    assert message is not None
    assert message.base_round == world.state.known[0] == 1


def test_a_server_that_goes_back_takes_its_clients_along() -> None:
    """Restored from a snapshot two rounds old: votes of the rounds that are lost do not count in the new ones."""
    world = World(run_spec(MODEL))
    for _ in range(2):
        for slot in range(3):
            world.deliver(slot, world.train(slot))
        world.commit()
    old, p_hat, mean, voted = world.state, world.p_hat, world.mean, dict(world.voted)
    for slots in ((0, 1), (0, 1, 2)):
        for slot in slots:
            world.deliver(slot, world.train(slot))
        world.commit()
    lost = [world.train(slot) for slot in range(3)]  # of round 5, from a state that no longer is
    world.state, world.p_hat, world.mean, world.voted = old, p_hat, mean, voted
    for _ in range(2):
        world.deliver(2, world.train(2))
        world.commit()
    for slot in (0, 1):
        with pytest.raises(OutOfSync, match="public state"):
            world.server.read_vote(world.state, slot, update_of(lost[slot]))
        assert world.deliver(slot, world.train(slot))
    world.commit()
    for slot in range(3):
        world.bring_up(slot)


@settings(max_examples=25)
@given(
    specs(),
    st.integers(0, 4),
    st.integers(1, 4),
    st.sampled_from(["raise", "lower", "random"]),
    st.integers(0, 99),
)
def test_colluders_move_a_weight_by_at_most_their_share(
    spec: Spec, honest: int, colluding: int, attack: str, seed: int
) -> None:
    """f of K: p_hat with their votes, and with votes of nothing in their place."""
    count = honest + colluding
    spec = replace(spec, data=replace(spec.data, num_slots=count))
    world = World(spec)
    honest_votes = {slot: world.train(slot) for slot in range(honest)}
    rng = np.random.default_rng(seed)
    ends: list[NDArray[np.int64]] = []
    for attacking in (True, False):
        ballot = world.server.open()
        for slot in range(count):
            answer = honest_votes.get(slot) or forge(world, slot, attack if attacking else "nothing", rng)
            ballot.add(world.server.read_vote(world.state, slot, update_of(answer)))
        ends.append(world.server.commit(world.state, ballot).private[0].astype(np.int64))
    share = spec.mask.eta_num.changes[0][1] * colluding * UNIT / (spec.mask.eta_den * count)
    kept = of_round(spec.mask.keep, 1) / 256  # the rest leaks at once
    assert np.abs(ends[0] - ends[1]).max() <= kept * share + 2  # divisions round down
    if attack == "raise" and count == 1:  # alone it has all that the bound gives
        moved = ends[0] - ends[1]
        assert (moved[moved > 0] >= kept * min(share, int(UNIT - ends[1].max())) - 2).all()


def forge(world: World, slot: int, attack: str, rng: np.random.Generator) -> bytes:
    """An update with the flips that an attacker wants: every one that goes its way."""
    state, spec = world.state.public, world.spec
    draw = Draw(world.levels, state.values, state.round + 1, slot)
    n = world.levels.num_params
    q, u = draw.q(0, n), draw.u(0, n)
    chosen = {
        "raise": u >= q,
        "lower": u < q,
        "random": rng.random(n) < 0.5,
        "nothing": np.zeros(n, np.bool_),
    }[attack]
    flips = Flips(draw, np.packbits(chosen, bitorder="little"))
    state_hash = state.hash(spec.run_id)
    update = Update(
        run_id=spec.run_id,
        round=draw.round,
        slot=slot,
        state_hash=state_hash,
        vote=encode_flips(flips),
        vote_hash=flips.hash(state_hash),
        metrics=Metrics(1, 1, 1),
    )
    return encode(Content(update=update))


def test_a_ballot_takes_one_vote_a_slot() -> None:
    world = World(run_spec(MODEL))
    vote = world.server.read_vote(world.state, 0, update_of(world.train(0)))
    ballot = world.server.open()
    ballot.add(vote)
    with pytest.raises(WrongRound, match="second vote of a slot"):
        ballot.add(vote)
    assert len(ballot) == 1
    assert dict(ballot.rounds) == {0: 1}
    assert ballot.metrics[0] == Metrics(7, 500, 1)


def test_a_client_with_other_weights_is_found_out() -> None:
    world = World(run_spec(MODEL))
    world.commit()
    ack = decode(world.ask(0, "query")).ack
    assert ack is not None
    weights = world.server.weights_sha256(world.state)
    world.server.check_ack(world.state, 0, ack, weights)
    for change, error in (
        ({"weights_sha256": b"\0" * 32}, OutOfSync),
        ({"state_hash": b"\0" * 16}, OutOfSync),
        ({"round": 0}, WrongRound),
        ({"slot": 1}, WrongRound),
        ({"run_id": 1}, WrongRound),
    ):
        with pytest.raises(error):
            world.server.check_ack(world.state, 0, replace(ack, **change), weights)


def test_a_corrupt_broadcast_is_noticed() -> None:
    world = World(run_spec(MODEL))
    world.deliver(0, world.train(0))
    world.commit()
    message = world.server.tasks(world.state, [0])[0].broadcast
    assert message is not None
    client = world.nodes[0]._run
    state = world.nodes[0]._state
    assert client is not None
    assert state is not None
    with pytest.raises(OutOfSync, match="hash of the public state"):
        client.client.apply(state, replace(message, state_hash=b"\0" * 16))
    with pytest.raises(MalformedFrame):
        client.client.apply(state, replace(message, change=bytes(message.change) + b"\0"))
    after = client.client.apply(state, message)
    assert client.client.apply(after, message) is after


def test_levels_of_a_run_are_those_of_its_spec() -> None:
    spec = run_spec(MODEL)
    assert Levels.of(spec) == Levels(spec.mask, MODEL.seed, (9 * 13, 90))
