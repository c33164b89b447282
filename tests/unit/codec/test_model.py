"""Probabilities from counts, against the definition in fractions."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemn.codec.model import SCALE, ContextModel
from pemn.errors import LocalError
from tests.unit.codec.sequences import HAS_NUMBA, IMPLEMENTATIONS, implementation

needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="needs the extra `fast`")


def define(seen: list[tuple[tuple[int, ...], int]], digits: tuple[int, ...], clip: bool = True) -> int:
    """The frequency of a 1 where the digits begin a context, in 1/32768, by docs/wire.md, "Probabilities"."""
    alike = [one for context, one in seen if context[: len(digits)] == digits]
    coarser = Fraction(SCALE, 2) if not digits else Fraction(define(seen, digits[:-1], clip=False))
    borrowed = 16 if len(digits) >= 2 else 2
    estimate = (sum(alike) * SCALE + borrowed * coarser) / (len(alike) + borrowed)
    rounded = math.floor(estimate + Fraction(1, 2))
    return min(max(rounded, 1), SCALE - 1) if clip else rounded


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@settings(max_examples=40)
@given(
    st.sampled_from([(), (3,), (2, 3), (3, 2, 2), (2, 2, 2, 2)]),
    st.integers(0, 1 << 30),
    st.lists(st.integers(0, 120), max_size=3),
    st.sampled_from([0, 0.01, 0.4, 1]),
)
def test_the_table_is_what_the_definition_says(
    name: str, shape: tuple[int, ...], seed: int, blocks: list[int], share: float
) -> None:
    random, model = np.random.default_rng(seed), ContextModel(shape)
    seen: list[tuple[tuple[int, ...], int]] = []
    for size in blocks:
        decisions = random.random(size) < share
        contexts = random.integers(0, math.prod(shape), size).astype(np.uint16)
        before = model.table
        with implementation(name):
            model.count(decisions[: size // 3], contexts[: size // 3])
            model.count(decisions[size // 3 :], contexts[size // 3 :])
            assert model.table is before  # nothing is learnt before the block ends
            model.adapt()
        digits = np.stack(np.unravel_index(contexts, shape), 1).tolist() if shape else [()] * size
        seen += [(tuple(context), int(one)) for context, one in zip(digits, decisions, strict=True)]
    told = [define(seen, digits) for digits in np.ndindex(*shape)]
    assert model.table.tolist() == told


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@settings(max_examples=40)
@given(st.integers(0, 1 << 30), st.integers(1, 5))
def test_the_cost_is_the_length_of_an_ideal_code(name: str, seed: int, num_blocks: int) -> None:
    random, model, bits = np.random.default_rng(seed), ContextModel((5,)), 0.0
    for _ in range(num_blocks):
        decisions, contexts = random.random(500) < 0.1, random.integers(0, 5, 500).astype(np.uint16)
        p = model.table[contexts] / SCALE
        bits -= float(np.log2(np.where(decisions, p, 1 - p)).sum())
        with implementation(name):
            model.count(decisions, contexts)
            model.adapt()
    assert bits - 1 <= model.cost <= bits + 1e-3 * 500 * num_blocks


@needs_numba
@given(
    st.integers(0, 1 << 30),
    st.sampled_from([1, 1 << 10, 1 << 20, 1 << 32]),
    st.sampled_from([(3,), (32, 16, 8)]),
)
def test_compiled_loops_give_the_same_integers(seed: int, most: int, shape: tuple[int, ...]) -> None:
    """However much was counted: 16 decisions on each of 2^28 weights are 2^32."""
    random, model = np.random.default_rng(seed), ContextModel(shape)
    model._counts[:] = random.integers(0, most, model._counts.shape, endpoint=True)
    model._counts[1, ::3] = model._counts[0, ::3] * random.integers(0, 4)  # divides without a rest, or almost
    model._fresh[:] = random.integers(0, 32_768, model._fresh.shape)
    model.table = random.integers(1, SCALE, model.table.size).astype(np.uint16)
    without = copy.deepcopy(model)
    with implementation("numba"):
        model.adapt()
    with implementation("lanes"):
        without.adapt()
    assert np.array_equal(model.table, without.table)
    assert model._cost == without._cost


@pytest.mark.parametrize("shape", [(0,), (1 << 16, 2)])
def test_contexts_that_do_not_fit_in_16_bits_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LocalError, match="contexts"):
        ContextModel(shape)
