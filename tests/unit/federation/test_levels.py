"""Probabilities of the public state, and the dither."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.federation.levels import (
    HIGHEST,
    LOWEST,
    NUM_ARCSINE_BUCKETS,
    ONE,
    Levels,
    arcsine_bucket,
    dither,
    normal_start_levels,
)
from pemn.wire.spec import MaskProtocol


def levels(step: int = 32768, spread: float = 3.0, n: int = 20_000, seed: int = 5) -> Levels:
    return Levels(MaskProtocol(step, 1, 1, normal_start_levels(spread)), seed, n)


def test_start_levels_are_those_of_a_normal_score() -> None:
    scores = np.log(levels(spread=1.5).start / (ONE - levels(spread=1.5).start.astype(float)))
    assert abs(scores.mean()) < 0.05
    assert scores.std() == pytest.approx(1.5, rel=0.03)


def test_no_spread_is_one_half() -> None:
    assert set(levels(spread=0).start.tolist()) == {32768}


def test_the_table_is_symmetric() -> None:
    start = levels().start.astype(int)
    assert abs(np.mean(start > 32768) - 0.5) < 0.02
    lower = set(np.unique(start[start < 32768]).tolist())
    upper = {ONE - v for v in np.unique(start[start > 32768]).tolist()}
    assert len(lower & upper) > 0.9 * len(lower)


@given(st.integers(1, 65535), st.integers(-127, 127))
def test_q_is_the_clipped_sum(step: int, k: int) -> None:
    model = levels(step=step, n=50)
    q = model.at(np.full(50, k, np.int8))
    wanted = [min(max(int(s) + k * step, LOWEST), HIGHEST) for s in model.start]
    assert q.tolist() == wanted


def test_buckets_are_arcsine_buckets() -> None:
    q = np.arange(ONE, dtype=np.uint16)
    wanted = [int(NUM_ARCSINE_BUCKETS * 2 / math.pi * math.asin(math.sqrt(v / ONE))) for v in range(ONE)]
    wrong = np.flatnonzero(arcsine_bucket(q) != wanted)
    # Only where the float of this test falls on the other side of an edge that is an integer.
    assert wrong.size <= 1


def test_every_round_and_slot_has_its_own_uniform_dither() -> None:
    drawn = {(r, s): dither(9, r, s, 10_000) for r in range(3) for s in range(3)}
    for u in drawn.values():
        assert abs(u.mean() / ONE - 0.5) < 0.02
    for one in drawn:
        for two in drawn:
            assert (one == two) == np.array_equal(drawn[one], drawn[two])
