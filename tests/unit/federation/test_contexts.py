"""Contexts, against the same arithmetic in integers that do not wrap around."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.codec.log2 import LOG_ODDS
from pemn.federation.contexts import (
    BITS,
    DOWN,
    MORE,
    MOVES,
    TWO,
    flip_contexts,
    flip_shape,
    move_contexts,
    move_shape,
    of_bit,
    of_kind,
    start_buckets,
)
from pemn.federation.groups import LayerGroups
from pemn.federation.levels import HIGHEST, LOWEST, ONE

EVERY_U = np.arange(ONE, dtype=np.uint16)
EVERY_Q = np.arange(LOWEST, HIGHEST + 1, dtype=np.uint16)
LEVELS = st.integers(LOWEST, HIGHEST)


def last_group_of(num_layers: int, size: int) -> LayerGroups:
    """All weights but one a layer are in the last layer."""
    return LayerGroups.of((1,) * (num_layers - 1) + (size,))


def odds(level: int) -> int:
    """In 1/1024 octaves."""
    return int(LOG_ODDS[level]) // 64


def bucket(value: int, width: int, count: int) -> int:
    return min(max(value // width + count // 2, 0), count - 1)


@given(LEVELS, st.integers(1, 20))
def test_contexts_of_flips_are_exact_for_every_dither(level: int, num_layers: int) -> None:
    groups = last_group_of(num_layers, ONE)
    start, count = num_layers - 1, groups.count
    contexts = flip_contexts(np.full(ONE, level, np.uint16), EVERY_U, groups, start)
    assert contexts.dtype == np.uint16
    assert int(contexts.max()) < math.prod(flip_shape(groups)) <= ONE
    distance, rest = np.divmod(contexts.astype(np.int64), flip_shape(groups)[1] * count)
    assert (np.diff(distance) >= 0).all()
    assert (rest == bucket(odds(level), 1024, 16) * count + count - 1).all()
    wanted = np.clip((LOG_ODDS // 64 - odds(level)) // 512 + 16, 0, 31)
    assert np.array_equal(distance, wanted)


def test_the_dither_lies_above_q_from_the_middle_bucket_on() -> None:
    groups = LayerGroups.of((ONE,))
    for level in (LOWEST, 1000, 32768, HIGHEST):
        contexts = flip_contexts(np.full(ONE, level, np.uint16), EVERY_U, groups, 0)
        assert np.array_equal(contexts // 16 >= 16, odds(level) <= LOG_ODDS // 64)


@pytest.mark.parametrize("num_layers", [1, 8, 9])
@pytest.mark.parametrize("k", [-127, -1, 0, 1, 127])
def test_contexts_of_moves_are_exact_for_every_level(num_layers: int, k: int) -> None:
    groups = last_group_of(num_layers, EVERY_Q.size)
    contexts = move_contexts(EVERY_Q, np.full(EVERY_Q.size, k, np.int8), groups, num_layers - 1)
    level, rest = np.divmod(contexts.astype(np.int64), 3 * groups.count)
    assert (np.diff(level) >= 0).all()
    assert level.tolist() == [bucket(odds(q), 512, 32) for q in EVERY_Q.tolist()]
    assert (rest == (np.sign(k) + 1) * groups.count + groups.count - 1).all()


@pytest.mark.parametrize("num_layers", [1, 2, 8, 12])
def test_every_kind_of_decision_has_contexts_of_its_own(num_layers: int) -> None:
    groups = last_group_of(num_layers, 3 * EVERY_Q.size)
    signs = np.repeat(np.array([-1, 0, 1], np.int8), EVERY_Q.size)
    contexts = move_contexts(np.tile(EVERY_Q, 3), signs, groups, num_layers - 1)
    kinds: list[NDArray[np.uint16]] = [of_kind(contexts, kind, groups) for kind in (MOVES, DOWN, TWO, MORE)]
    kinds += [of_bit(contexts, bit, groups) for bit in range(8)]
    assert np.array_equal(kinds[MOVES], contexts)
    found = [set(np.unique(kind).tolist()) for kind in kinds]
    assert len(set.union(*found)) == sum(map(len, found))
    assert max(map(max, found)) < math.prod(move_shape(groups)) <= ONE
    a_level = 3 * groups.count
    for kind, values in enumerate(found):
        first_level = 32 * kind if kind < BITS else 32 * BITS + kind - BITS
        levels = 32 if kind < BITS else 1
        assert {value // a_level - first_level for value in values} <= set(range(levels))


def test_start_buckets_are_half_octaves() -> None:
    buckets = start_buckets(EVERY_Q)
    assert (np.diff(buckets) >= 0).all()
    assert buckets.tolist() == [bucket(odds(q), 512, 32) for q in EVERY_Q.tolist()]
    # 32768 is half a draw above 1/2: the first level of the bucket above.
    assert (
        int(start_buckets(np.array([32767], np.uint16))[0]),
        int(start_buckets(np.array([32768], np.uint16))[0]),
    ) == (15, 16)
