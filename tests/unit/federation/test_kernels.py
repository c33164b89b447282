"""The compiled loops over weights, against what is done without them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.federation import fast
from pemn.federation.contexts import flip_contexts, move_contexts, start_buckets
from pemn.federation.groups import LayerGroups
from pemn.federation.levels import HIGHEST, LOWEST, ONE, Levels, dither, normal_start_levels, start_draws
from pemn.generator import uint16s
from pemn.schedule import Schedule
from pemn.wire.protocols import MaskProtocol
from tests.unit.codec.sequences import HAS_NUMBA, implementation

pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="needs the extra `fast`")

SEEDS = st.integers(0, 2**64 - 1)
EVERY_U = np.arange(ONE, dtype=np.uint16)


def assert_alike(do: Callable[[], NDArray[np.generic]]) -> None:
    with implementation("lanes"):
        assert fast.kernels() is None
        wanted = do()
    with implementation("numba"):
        assert fast.kernels() is not None
        got = do()
    assert got.dtype == wanted.dtype
    assert np.array_equal(got, wanted)


@given(SEEDS, st.integers(0, 2**40), st.integers(0, 70_000))
@example(2**64 - 1, 2**40 - 1, 0)
def test_draws(seed: int, start: int, count: int) -> None:
    assert_alike(lambda: start_draws(seed, start, start + count))
    assert_alike(lambda: dither(seed, 3, 1, start, start + count))
    with implementation("numba"):
        kernels = fast.kernels()
        assert kernels is not None
        assert np.array_equal(kernels.uint16s(seed, start, count), uint16s(seed, start, count))


@given(
    SEEDS,
    st.sampled_from([256, 4096, 32_768, 65_535]),
    st.sampled_from([0.0, 3.0]),
    st.integers(0, 1000),
    st.integers(0, 140_000),
)
def test_probabilities(seed: int, step: int, spread: float, first: int, count: int) -> None:
    levels = Levels(MaskProtocol(step, Schedule.always(1), 1, normal_start_levels(spread)), seed, (200_000,))
    k = np.random.default_rng(seed).integers(-127, 127, count, dtype=np.int8, endpoint=True)
    assert_alike(lambda: levels.at(k, first))


@given(st.integers(LOWEST, HIGHEST), st.lists(st.integers(1, ONE), min_size=1, max_size=20))
@example(LOWEST, [ONE])
@example(HIGHEST, [ONE])
def test_contexts(level: int, sizes: list[int]) -> None:
    groups = LayerGroups.of((*sizes, ONE))
    q = np.full(ONE, level, np.uint16)
    k = np.resize(np.arange(-127, 128, dtype=np.int8), ONE)
    every_q = EVERY_U.clip(LOWEST, HIGHEST)
    assert_alike(lambda: flip_contexts(q, EVERY_U, groups, sizes[0] // 2))
    assert_alike(lambda: flip_contexts(every_q, EVERY_U[::-1].copy(), groups, 0))
    assert_alike(lambda: move_contexts(every_q, k, groups, sizes[0] // 2))
    assert_alike(lambda: start_buckets(EVERY_U))
