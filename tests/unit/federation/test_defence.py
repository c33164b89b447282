"""What of a round's votes is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.errors import LocalError
from pemn.federation.defence import Defence, TrimmedTally, outliers
from pemn.federation.flips import Draw, Flips, draw_flips
from pemn.federation.levels import HIGHEST, LOWEST, Levels
from pemn.federation.tally import Tally
from pemn.methods import Server
from pemn.methods.mask import FlipTally, ScoredFlipTally
from pemn.wire.messages import Metrics
from pemn.wire.protocols import FedAvgProtocol
from tests.networks import model_spec, run_spec

LEVELS = Levels.of(run_spec(model_spec((31, 50), (10, 31))))
N = LEVELS.num_params
METRICS = Metrics(1, 1, 1)


def draw_of(slot: int) -> Draw:
    return Draw(LEVELS, np.zeros(N, np.int8), 1, slot)


def honest(slot: int, strength: float = 6000) -> Flips:
    """Clients that agree about where each weight should go, and differ in how far."""
    draw = draw_of(slot)
    where = np.random.default_rng(99).normal(0, strength, N)
    moved = draw.q(0, N) + where + np.random.default_rng(slot).normal(0, strength / 2, N)
    return draw_flips(moved.clip(LOWEST, HIGHEST).astype(np.uint16), draw)


def inverse(slot: int) -> Flips:
    draw = draw_of(slot)
    where = np.random.default_rng(99).normal(0, 1, N)
    return draw_flips(np.where(where > 0, np.uint16(LOWEST), np.uint16(HIGHEST)), draw)


def random_vote(slot: int) -> Flips:
    chance = np.random.default_rng(slot + 1000)
    return draw_flips(chance.integers(LOWEST, HIGHEST + 1, N).astype(np.uint16), draw_of(slot))


def says(vote: Flips) -> NDArray[np.int32]:
    single = Tally(N)
    single.add(vote)
    return single.sums(0, N)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_a_trimmed_tally_is_the_sum_without_the_extremes(num_votes: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    votes = []
    for slot in range(num_votes):
        draw = draw_of(slot)
        bits = chance.random(N) < chance.random()
        votes.append(Flips(draw, np.packbits(bits, bitorder="little")))
    tally = TrimmedTally(N)
    for vote in votes:
        tally.add(vote)
    trimmed = num_votes // 5
    assert tally.num_votes == num_votes - 2 * trimmed
    each = np.sort(np.array([says(vote) for vote in votes], np.int32).reshape(num_votes, N), axis=0)
    wanted = each[trimmed : num_votes - trimmed].sum(0)
    assert np.array_equal(tally.sums(0, N), wanted)
    assert np.array_equal(tally.sums(8, N - 3), wanted[8 : N - 3])


@pytest.mark.parametrize("attack", [inverse, random_vote])
@pytest.mark.parametrize("num_attackers", [1, 2, 4])
def test_votes_unlike_the_others_are_found(attack: object, num_attackers: int) -> None:
    assert callable(attack)
    votes = [attack(slot) if slot < num_attackers else honest(slot) for slot in range(10)]
    assert outliers(votes) == list(range(num_attackers))
    assert outliers(votes[::-1]) == sorted(9 - i for i in range(num_attackers))


def test_clients_that_agree_are_let_be() -> None:
    assert outliers([honest(slot) for slot in range(10)]) == []
    assert outliers([honest(slot) for slot in range(3)]) == []
    assert outliers([]) == []
    still = [Flips(draw_of(slot), np.zeros(-(-N // 8), np.uint8)) for slot in range(8)]
    assert outliers(still) == []


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_never_half_of_the_votes_are_left_out(seeds: list[int]) -> None:
    votes = []
    for slot, seed in enumerate(seeds):
        chance = np.random.default_rng(seed)
        bits = chance.random(N) < chance.random() ** 4
        votes.append(Flips(draw_of(slot), np.packbits(bits, bitorder="little")))
    assert 2 * len(outliers(votes)) < len(votes)


def test_what_is_left_out_does_not_depend_on_the_order() -> None:
    votes = {slot: inverse(slot) if slot in (3, 6) else honest(slot) for slot in range(9)}
    tallies = []
    for order in (list(votes), list(votes)[::-1]):
        tally = ScoredFlipTally(N)
        for slot in order:
            tally.add(slot, votes[slot], METRICS)
        assert tally.left_out() == [3, 6]
        tallies.append(tally.flips)
    plain = FlipTally(N)
    for slot, vote in votes.items():
        if slot not in (3, 6):
            plain.add(slot, vote, METRICS)
    for found in tallies:
        assert found.num_votes == 7
        assert np.array_equal(found.sums(0, N), plain.flips.sums(0, N))


def test_only_masks_are_defended() -> None:
    spec = run_spec(model_spec((31, 50), (10, 31)))
    assert isinstance(Server.of(spec, defence=Defence.SCORE).open().tally, ScoredFlipTally)
    with pytest.raises(LocalError, match="defence: got trim; wanted the method mask; in fedavg"):
        Server.of(replace(spec, protocol=FedAvgProtocol(0.5), method="fedavg"), defence=Defence.TRIM)
