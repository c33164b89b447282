"""Logarithms as integers: what a context and a code length are computed from, the same on every machine.

Source: docs/wire.md, "Integer logarithms".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ONE = 1 << 16
"""Logarithms are in 1/65536: this is 1 bit, one doubling."""


def log2(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the binary logarithm, rounded down bit by bit.

    By repeated squaring of the mantissa: each of 16 steps gives one more binary place. Truncation makes the last
    places inexact, but alike everywhere.

    Args:
        values: Each 1 .. 2^30.

    Returns:
        int64 of the same shape, in 1/65536.
    """
    whole = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
    mantissa = values.astype(np.int64) << (30 - whole)
    out = whole
    for _ in range(16):
        mantissa = mantissa * mantissa >> 30
        doubled = mantissa >> 31
        mantissa >>= doubled
        out = out << 1 | doubled
    return out


def _log_odds() -> NDArray[np.int32]:
    levels = np.arange(1 << 16, dtype=np.int64)
    return (log2(2 * levels + 1) - log2((1 << 17) - 1 - 2 * levels)).astype(np.int32)


LOG_ODDS = _log_odds()
"""For each probability in 1/65536, its log2 odds in 1/65536: int32 [65536], ascending, -(17 << 16) .. 17 << 16.

Scores that a client trains move by steps of about equal size on this scale, wherever they are: so it is the scale on
which "how far" says how likely.
"""
LOG_ODDS.setflags(write=False)
