"""What the server learns, and what it tells."""

from __future__ import annotations

import random
import weakref
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.errors import LocalError
from pemn.federation import tally as tally_module
from pemn.federation.flips import Draw, Flips
from pemn.federation.levels import HALF, HIGHEST, LOWEST, Levels, normal_start_levels
from pemn.federation.planes import GROUP
from pemn.federation.tally import UNIT, Tally, agree, average, forget, learn, settle, start
from pemn.schedule import Schedule
from pemn.wire import limits
from pemn.wire.protocols import MaskProtocol

N = 13

VOTES = st.lists(
    st.lists(st.sampled_from([-1, 0, 1]), min_size=N, max_size=N).map(lambda v: np.array(v, np.int8)),
    min_size=1,
    max_size=40,
)
ETAS = st.tuples(st.integers(1, 65535), st.integers(1, 65535))
P_HATS = st.lists(st.sampled_from([0, 1, UNIT - 1, UNIT]) | st.integers(0, UNIT), min_size=N, max_size=N)


def protocol(step: int = 32768, eta: tuple[int, int] = (1, 1)) -> MaskProtocol:
    return MaskProtocol(step, Schedule.always(eta[0]), eta[1], normal_start_levels(3.0, 64))


def p_hat() -> NDArray[np.int32]:
    return start(Levels(protocol(), 3, (N,)).at(np.zeros(N, np.int8)))


def tally_of(votes: list[NDArray[np.int8]], n: int = N) -> Tally:
    tally = Tally(n)
    for vote in votes:
        tally.add(flips_of(vote))
    return tally


@dataclass(frozen=True, eq=False)
class Wanted(Draw):
    """A dither that makes of every flip what the vote is to be: -1 where it is below 1/2."""

    vote: NDArray[np.int8] = field(kw_only=True)

    def q(self, start: int, stop: int) -> NDArray[np.uint16]:
        return np.full(stop - start, 32768, np.uint16)

    def u(self, start: int, stop: int) -> NDArray[np.uint16]:
        vote, noise = self.vote[start:stop], np.random.default_rng(start).integers(0, 65536, stop - start)
        return np.select([vote < 0, vote > 0], [32767, 32768], noise).astype(np.uint16)


def flips_of(vote: NDArray[np.int8]) -> Flips:
    """A vote of -1, 0, 1 as it comes in."""
    draw = Wanted(Levels(protocol(), 0, (vote.size,)), np.zeros(vote.size, np.int8), 1, 0, vote=vote)
    return Flips(draw, np.packbits(vote != 0, bitorder="little"))


@given(VOTES, st.randoms())
def test_order_changes_nothing(votes: list[NDArray[np.int8]], order: random.Random) -> None:
    shuffled = list(votes)
    order.shuffle(shuffled)
    assert np.array_equal(tally_of(votes).sums(0, N), tally_of(shuffled).sums(0, N))


@given(VOTES)
def test_every_vote_counts_once(votes: list[NDArray[np.int8]]) -> None:
    tally = tally_of(votes)
    assert tally.num_votes == len(votes)
    assert tally.sums(0, N).tolist() == np.sum(votes, axis=0, dtype=int).tolist()
    assert tally.sums(8, N).tolist() == np.sum(votes, axis=0, dtype=int)[8:].tolist()


@given(VOTES, VOTES)
def test_votes_may_come_after_a_look_at_the_sums(
    early: list[NDArray[np.int8]], late: list[NDArray[np.int8]]
) -> None:
    tally = tally_of(early)
    tally.sums(0, N)
    for vote in late:
        tally.add(flips_of(vote))
    assert tally.sums(0, N).tolist() == np.sum(early + late, axis=0, dtype=int).tolist()


def test_votes_are_let_go_when_they_are_counted() -> None:
    tally, kept = Tally(N), []
    for _ in range(100):
        vote = flips_of(np.ones(N, np.int8))
        kept.append(weakref.ref(vote.mask))
        tally.add(vote)
    del vote
    assert sum(mask() is not None for mask in kept) == 100 % (GROUP // 2)


def test_public_probabilities_are_drawn_once_for_votes_of_one_base(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, drawn = [], Draw.q

    def q(self: Draw, start: int, stop: int) -> NDArray[np.uint16]:
        calls.append(self.k)
        return drawn(self, start, stop)

    monkeypatch.setattr(Draw, "q", q)
    levels, k, late = Levels(protocol(), 0, (N,)), np.zeros(N, np.int8), np.ones(N, np.int8)
    tally = Tally(N)
    for slot, base in enumerate([k, k, k, late, k, k]):
        tally.add(Flips(Draw(levels, base, 1, slot), np.zeros(2, np.uint8)))
    tally.sums(0, N)
    assert [base is late for base in calls] == [False, True, False]


def packed(*shape: int, dtype: type = np.uint8) -> Flips:
    return replace(flips_of(np.zeros(N, np.int8)), mask=np.zeros(shape, dtype))


@pytest.mark.parametrize(
    "vote",
    [packed(1), packed(3), packed(1, 2), packed(2, dtype=np.bool_), flips_of(np.zeros(N + 1, np.int8))],
)
def test_a_vote_of_another_network_is_refused_and_not_counted(vote: Flips) -> None:
    tally = Tally(N)
    with pytest.raises(LocalError, match=r"size of a vote.*wanted 13 weights, uint8"):
        tally.add(vote)
    assert tally.num_votes == 0


@pytest.mark.parametrize(("first", "stop"), [(4, 8), (-8, 8), (0, N + 1), (8, 0)])
def test_sums_of_weights_that_are_not_there_are_refused(first: int, stop: int) -> None:
    with pytest.raises(LocalError, match="weights of a tally"):
        Tally(N).sums(first, stop)


@given(VOTES, P_HATS, ETAS)
def test_learning_is_the_documents_formula(
    votes: list[NDArray[np.int8]], before: list[int], eta: tuple[int, int]
) -> None:
    learnt = learn(protocol(eta=eta), 1, np.array(before, np.int32), tally_of(votes))
    sums = np.sum(votes, axis=0, dtype=int).tolist()
    num, den = eta
    wanted = [
        min(max(p + (num * s * 2**24) // (den * len(votes)), 0), 2**24)
        for p, s in zip(before, sums, strict=True)
    ]
    assert learnt.dtype == np.int32
    assert learnt.tolist() == wanted


@cache
def most_votes() -> Tally:
    """65,535 votes: all against the first eight weights, two thirds against the next eight, all for the last."""
    votes = np.ones((2, 24), np.int8)
    votes[0, :8], votes[1, :16] = -1, -1
    few, many = (flips_of(vote) for vote in votes)
    tally = Tally(24)
    for i in range(65535):
        tally.add(many if i % 3 else few)
    return tally


@pytest.mark.parametrize("eta", [(65535, 1), (1, 65535), (65535, 65534), (1, 3)])
def test_learning_from_the_most_votes(eta: tuple[int, int]) -> None:
    sums = [-65535] * 8 + [-21845] * 8 + [65535] * 8
    assert most_votes().sums(0, 24).tolist() == sums
    learnt = learn(protocol(eta=eta), 1, np.full(24, UNIT // 2, np.int32), most_votes())
    wanted = [min(max(UNIT // 2 + eta[0] * s * UNIT // (eta[1] * 65535), 0), UNIT) for s in sums]
    assert learnt.tolist() == wanted


@given(VOTES, VOTES, st.integers(1, 3000))
def test_colluders_move_a_weight_by_at_most_their_share(
    honest: list[NDArray[np.int8]], colluding: list[NDArray[np.int8]], eta: int
) -> None:
    rule, zero = protocol(eta=(eta, 1000)), np.zeros(N, np.int8)
    num_votes = len(honest) + len(colluding)
    without = learn(rule, 1, p_hat(), tally_of(honest + [zero] * len(colluding)))
    with_them = learn(rule, 1, p_hat(), tally_of(honest + colluding))
    bound = eta * len(colluding) * UNIT / (1000 * num_votes)
    assert np.abs(with_them.astype(np.int64) - without).max() <= bound + 1


@given(VOTES)
def test_the_mean_vote_is_learnt(votes: list[NDArray[np.int8]]) -> None:
    wanted = np.clip(p_hat() + np.mean(votes, axis=0) * UNIT, 0, UNIT)
    assert np.abs(learn(protocol(), 1, p_hat(), tally_of(votes)) - wanted).max() <= 1


@given(VOTES, st.integers(2, 5))
def test_only_shares_count(votes: list[NDArray[np.int8]], times: int) -> None:
    """Everybody's vote several times over says nothing new."""
    rule = protocol(eta=(1, 7))
    assert np.array_equal(
        learn(rule, 1, p_hat(), tally_of(votes)), learn(rule, 1, p_hat(), tally_of(votes * times))
    )


def test_no_vote_changes_nothing() -> None:
    assert np.array_equal(learn(protocol(), 1, p_hat(), Tally(N)), p_hat())


def test_the_tally_of_another_network_is_refused() -> None:
    with pytest.raises(LocalError, match="tally of another network: got 14; wanted 13"):
        learn(protocol(), 1, p_hat(), Tally(N + 1))


def test_what_was_learnt_is_a_new_array() -> None:
    before = p_hat()
    kept = before.copy()
    for tally in (Tally(N), tally_of([np.ones(N, np.int8)])):
        learnt = learn(protocol(), 1, before, tally)
        learnt += 1
        assert np.array_equal(before, kept)


@given(P_HATS, st.integers(0, 99), st.integers(1, 256))
def test_what_is_forgotten_is_a_part_of_the_way_from_q(learnt: list[int], seed: int, keep: int) -> None:
    rule, before = replace(protocol(), keep=Schedule.always(keep)), np.array(learnt, np.int32)
    q = Levels(rule, seed, (N,)).at(np.random.default_rng(seed).integers(-3, 4, N).astype(np.int8))
    after = forget(rule, 1, before, q)
    away, left = before - q.astype(np.int64) * 256, after - q.astype(np.int64) * 256
    assert after.dtype == np.int32
    assert np.abs(left - away * keep / 256).max() < 1
    assert (left * away >= 0).all()  # never beyond q
    if keep == 256:
        assert np.array_equal(after, before)


def test_what_was_not_told_is_forgotten_but_what_goes_on_is_learnt() -> None:
    """A push of a hundredth a round is not enough for a quarter's leak and a dead zone of a quarter; a tenth is."""
    rule = replace(protocol(step=32768), keep=Schedule.always(192))
    q = np.full(N, 40_000, np.uint16)
    for push, told in ((0.01, False), (0.1, True)):
        p_hat_ = start(q)
        for _ in range(99):
            p_hat_ = forget(rule, 1, p_hat_ - np.int32(push * UNIT), q)
        assert bool((settle(rule, 1, p_hat_, np.zeros(N, np.int8), q) != 0).all()) == told


def test_what_is_kept_is_that_of_the_round() -> None:
    rule, q = replace(protocol(), keep=by_round((1, 256), (3, 64))), np.full(N, 40_000, np.uint16)
    kept = [forget(rule, round_, start(q) + 4096, q) - start(q) for round_ in (1, 2, 3, 9)]
    assert [set(away.tolist()) for away in kept] == [{4096}, {4096}, {1024}, {1024}]


@given(st.integers(1, 65535), P_HATS, st.integers(0, 99))
def test_settling_is_the_documents_formula(step: int, learnt: list[int], seed: int) -> None:
    k = np.random.default_rng(seed).integers(-127, 128, N).astype(np.int8)
    q = Levels(protocol(step=step), seed, (N,)).at(k)
    after = settle(protocol(step=step), 1, np.array(learnt, np.int32), k, q)
    wanted = [
        min(max(before + (2 * (p - 256 * level) + 256 * step) // (2 * 256 * step), -127), 127)
        for before, p, level in zip(k.tolist(), learnt, q.tolist(), strict=True)
    ]
    assert after.dtype == np.int8
    assert after.tolist() == wanted


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    n, random_ = 1003, np.random.default_rng(8)
    votes = [vote.astype(np.int8) for vote in random_.integers(-1, 2, (21, n))]
    before, k = random_.integers(0, UNIT, n, np.int32, endpoint=True), random_.integers(-127, 128, n, np.int8)
    rule = protocol(step=2000, eta=(2, 3))
    q = Levels(rule, 3, (n,)).at(k)

    def after_a_round() -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        learnt = learn(rule, 1, before, tally_of(votes, n))
        return learnt, settle(rule, 1, learnt, k, q)

    whole = after_a_round()
    monkeypatch.setattr(tally_module, "_BLOCK_WEIGHTS", 64)
    in_blocks = after_a_round()
    assert np.array_equal(in_blocks[0], whole[0])
    assert np.array_equal(in_blocks[1], whole[1])


@given(st.integers(1, 65535), st.lists(st.integers(0, UNIT), min_size=N, max_size=N))
def test_the_public_state_follows_to_within_half_a_step(step: int, learnt: list[int]) -> None:
    rule = protocol(step=step)
    levels, k = Levels(rule, 3, (N,)), np.zeros(N, np.int8)
    target = np.array(learnt, np.int32)
    after = settle(rule, 1, target, k, levels.at(k))
    q = levels.at(after).astype(np.int64) * (UNIT // 65536)
    inside = (np.abs(after) < 127) & (q > 66 * 256) & (q < 65470 * 256)
    assert (np.abs(q - target)[inside] <= step * 256 / 2).all()


def test_the_dead_zone_is_half_a_step_around_q() -> None:
    rule, half = protocol(step=8192), 4096 * 256
    levels, k = Levels(rule, 3, (N,)), np.zeros(N, np.int8)
    q = levels.at(k)
    for distance, steps in ((-half - 1, -1), (-half, 0), (0, 0), (half - 1, 0), (half, 1)):
        assert (settle(rule, 1, start(q) + distance, k, q) == steps).all()


def by_round(*changes: tuple[int, int]) -> Schedule[int]:
    return Schedule(tuple(changes))


@given(VOTES, st.integers(1, 9))
def test_eta_is_that_of_the_round(votes: list[NDArray[np.int8]], round_: int) -> None:
    rule = replace(protocol(), eta_num=by_round((1, 1), (3, 7), (8, 2)), eta_den=3)
    eta = 1 if round_ < 3 else 7 if round_ < 8 else 2
    learnt = learn(rule, round_, p_hat(), tally_of(votes))
    assert np.array_equal(learnt, learn(protocol(eta=(eta, 3)), 1, p_hat(), tally_of(votes)))


@given(st.sampled_from([512, 1000, 4096]), st.integers(1, 16), P_HATS, st.integers(0, 99))
def test_k_moves_by_strides(step: int, stride: int, learnt: list[int], seed: int) -> None:
    """To within half of one of p_hat, by no more of them than that takes, and by none inside the dead zone."""
    rule = replace(protocol(step=step), stride=Schedule.always(stride))
    levels = Levels(rule, seed, (N,))
    k, target = np.random.default_rng(seed).integers(-9, 10, N).astype(np.int8), np.array(learnt, np.int32)
    q, half = levels.at(k).astype(np.int64) * 256, stride * step * 128
    after = settle(rule, 1, target, k, levels.at(k))
    free = np.abs(after) < 127
    moved = after.astype(int) - k
    assert (moved[free] % stride == 0).all()
    assert np.array_equal(moved[free] == 0, ((target - q >= -half) & (target - q < half))[free])
    reached = q + moved * step * 256  # without the clip of q
    assert (np.abs(reached - target)[free] <= half).all()


def test_the_stride_is_that_of_the_round() -> None:
    rule = replace(protocol(step=4096), stride=by_round((1, 4), (5, 2), (6, 1)))
    levels, k = Levels(rule, 3, (N,)), np.zeros(N, np.int8)
    q = levels.at(k)
    target = start(q) + 7 * 2048 * 256 * np.where(q < 32768, 1, -1)  # three steps and a half
    moved = [np.abs(settle(rule, round_, target, k, q)).max() for round_ in (1, 4, 5, 6, 2**31 - 1)]
    assert moved == [4, 4, 4, 4, 4]
    near = start(q) + 3 * 2048 * 256 * np.where(q < 32768, 1, -1)  # a step and a half
    moved = [np.abs(settle(rule, round_, near, k, q)).max() for round_ in (1, 4, 5, 6, 2**31 - 1)]
    assert moved == [0, 0, 2, 2, 2]


@given(st.lists(P_HATS, min_size=1, max_size=12), st.sampled_from([2, 3, 5, 4096]), st.integers(1, 99))
def test_an_average_stays_between_what_it_is_of(
    learnt: list[list[int]], window: int, first_round: int
) -> None:
    rule = replace(protocol(), window=window)
    mean = low = high = p_hat().astype(np.int32)
    for round_, values in enumerate(learnt, first_round):
        new = np.array(values, np.int32)
        low, high = np.minimum(low, new), np.maximum(high, new)
        before = mean.copy()
        after = average(rule, round_, mean, new)
        assert after.dtype == np.int32
        assert np.array_equal(mean, before)  # a new array
        assert (after >= low).all()
        assert (after <= high).all()
        mean = after


@given(P_HATS, P_HATS, st.sampled_from([2, 3, 5, 9]))
def test_an_average_comes_to_what_stays(first: list[int], then: list[int], window: int) -> None:
    """Below it by less than a window, for it rounds down; from above, to it."""
    rule, target = replace(protocol(), window=window), np.array(then, np.int32)
    mean = np.array(first, np.int32)
    for round_ in range(1, 400):
        mean = average(rule, round_, mean, target)
    distance = target - mean
    assert (distance >= 0).all()
    assert (distance < window).all()
    assert (distance[np.array(first) >= np.array(then)] == 0).all()


@given(P_HATS, P_HATS, st.integers(1, 99))
def test_the_average_over_one_round_is_p_hat(first: list[int], then: list[int], round_: int) -> None:
    mean = average(protocol(), round_, np.array(first, np.int32), np.array(then, np.int32))
    assert mean.tolist() == then


def test_few_rounds_are_averaged_over_a_quarter_of_them() -> None:
    rule = replace(protocol(), window=5)
    zero, one = np.zeros(1, np.int32), np.full(1, UNIT, np.int32)
    shares = [UNIT // int(average(rule, round_, zero, one)[0]) for round_ in (1, 3, 4, 8, 15, 16, 17, 99)]
    assert shares == [1, 1, 2, 3, 4, 5, 5, 5]


@given(
    st.sampled_from([limits.MIN_STEP, 513, 4096, 32768, 65535]),
    P_HATS,
    st.lists(st.integers(-127, 127), min_size=N, max_size=N),
    st.sampled_from([1, 2, 7, 127]),
    st.integers(0, 99),
)
def test_a_released_model_is_the_mean_and_no_k_moves_that_need_not(
    step: int, mean: list[int], before: list[int], stride: int, seed: int
) -> None:
    changes = ((1, 1), (5, stride)) if stride > 1 else ((1, 1),)
    rule = replace(protocol(step=step), stride=Schedule(changes))
    levels, k = Levels(rule, seed, (N,)), np.array(before, np.int8)
    starts = levels.at(np.zeros(N, np.int8))
    released = agree(levels.protocol, 5, np.array(mean, np.int32), k, starts)
    wanted = np.array(mean) > UNIT // 2
    assert np.array_equal(levels.at(released) > HALF, wanted)
    right = (levels.at(k) > HALF) == wanted
    assert np.array_equal(released == k, right)
    moved = released.astype(int) - k
    nearer = (k + np.sign(moved) * np.maximum(np.abs(moved) - stride, 0)).astype(np.int8)
    assert ((levels.at(nearer) > HALF) != wanted)[~right].all()
    assert (moved % stride == 0)[np.abs(released) < 127].all()
    again = agree(levels.protocol, 5, np.array(mean, np.int32), released, starts)
    assert np.array_equal(again, released)


def test_every_weight_can_be_released_either_way() -> None:
    """With the finest step, from both ends of the start levels to beyond one half."""
    rule = protocol(step=limits.MIN_STEP)
    starts = np.array([LOWEST, HIGHEST] * 2, np.uint16)
    mean = np.array([UNIT, UNIT, 0, 0], np.int32)
    for k in (-127, 0, 127):
        released = agree(rule, 1, mean, np.full(4, k, np.int8), starts)
        q = (starts.astype(int) + released.astype(int) * rule.step).clip(LOWEST, HIGHEST)
        assert (q > HALF).tolist() == [True, True, False, False]
