"""What the server learns, and what it tells."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.federation.levels import Levels, normal_start_levels
from pemn.federation.tally import UNIT, learn, settle, start
from pemn.wire.spec import MaskProtocol

VOTES = st.lists(
    st.lists(st.sampled_from([-1, 0, 1]), min_size=12, max_size=12).map(lambda v: np.array(v, np.int8)),
    min_size=1,
    max_size=9,
)


def protocol(step: int = 32768, eta: tuple[int, int] = (1, 1)) -> MaskProtocol:
    return MaskProtocol(step, *eta, normal_start_levels(3.0, 64))


def p_hat() -> NDArray[np.int32]:
    return start(Levels(protocol(), 3, 12).start)


@given(VOTES, st.randoms())
def test_order_changes_nothing(votes: list[NDArray[np.int8]], random: object) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert np.array_equal(learn(protocol(), p_hat(), votes), learn(protocol(), p_hat(), shuffled))


@given(VOTES, VOTES, st.integers(1, 3000))
def test_colluders_move_a_weight_by_at_most_their_share(
    honest: list[NDArray[np.int8]], colluding: list[NDArray[np.int8]], eta: int
) -> None:
    rule, zero = protocol(eta=(eta, 1000)), np.zeros(12, np.int8)
    count = len(honest) + len(colluding)
    without = learn(rule, p_hat(), honest + [zero] * len(colluding))
    with_them = learn(rule, p_hat(), honest + colluding)
    bound = eta * len(colluding) * UNIT / (1000 * count)
    assert np.abs(with_them.astype(np.int64) - without).max() <= bound + 1


@given(VOTES)
def test_the_mean_vote_is_learnt(votes: list[NDArray[np.int8]]) -> None:
    wanted = np.clip(p_hat() + np.mean(votes, axis=0) * UNIT, 0, UNIT)
    assert np.abs(learn(protocol(), p_hat(), votes) - wanted).max() <= 1


def test_no_vote_changes_nothing() -> None:
    assert np.array_equal(learn(protocol(), p_hat(), []), p_hat())


@given(st.integers(1, 65535), st.lists(st.integers(0, UNIT), min_size=12, max_size=12))
def test_the_public_state_follows_to_within_half_a_step(step: int, learnt: list[int]) -> None:
    rule = protocol(step=step)
    levels, k = Levels(rule, 3, 12), np.zeros(12, np.int8)
    target = np.array(learnt, np.int32)
    after = settle(rule, target, k, levels.at(k))
    q = levels.at(after).astype(np.int64) * (UNIT // 65536)
    inside = (np.abs(after) < 127) & (q > 66 * 256) & (q < 65470 * 256)
    assert (np.abs(q - target)[inside] <= step * 256 / 2).all()


def test_inside_the_dead_zone_nothing_moves() -> None:
    rule = protocol(step=8192)
    levels, k = Levels(rule, 3, 12), np.zeros(12, np.int8)
    nudged = start(levels.at(k)) + 4096 * 256 - 1
    assert not settle(rule, nudged, k, levels.at(k)).any()
    assert (settle(rule, nudged + 2, k, levels.at(k)) == 1).all()
