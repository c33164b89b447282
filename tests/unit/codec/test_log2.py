"""Integer logarithms."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pemn.codec.log2 import LOG_ODDS, ONE, log2


@given(st.lists(st.integers(1, 1 << 30), min_size=1))
def test_log2_is_rounded_down(values: list[int]) -> None:
    for value, got in zip(values, log2(np.array(values)).tolist(), strict=True):
        assert -1.001 <= got - math.log2(value) * ONE <= 1e-6


def test_log2_of_powers_of_two_is_exact() -> None:
    assert log2(1 << np.arange(31)).tolist() == [shift * ONE for shift in range(31)]


def test_log2_never_falls() -> None:
    for start in (1, 1 << 14, (1 << 30) - 50_000):
        assert (np.diff(log2(np.arange(start, start + 50_000))) >= 0).all()


def test_log_odds() -> None:
    # Of the middle of each step of 1/65536, so that none is infinite.
    p = (np.arange(1 << 16) + 0.5) / (1 << 16)
    assert np.abs(LOG_ODDS - np.log2(p / (1 - p)) * ONE).max() < 1.01
    assert (np.diff(LOG_ODDS) > 0).all()
    assert (-LOG_ODDS[::-1] == LOG_ODDS).all()
    assert np.abs(LOG_ODDS).max() < 17 * ONE
