"""Probabilities from counts, against the definition in fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemn.codec.model import SCALE, ContextModel
from pemn.errors import LocalError
from tests.unit.codec.sequences import IMPLEMENTATIONS, implementation


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


@given(st.integers(0, 1 << 30), st.integers(1, 5))
def test_the_cost_is_the_length_of_an_ideal_code(seed: int, num_blocks: int) -> None:
    random, model, bits = np.random.default_rng(seed), ContextModel((5,)), 0.0
    for _ in range(num_blocks):
        decisions, contexts = random.random(500) < 0.1, random.integers(0, 5, 500).astype(np.uint16)
        p = model.table[contexts] / SCALE
        bits -= float(np.log2(np.where(decisions, p, 1 - p)).sum())
        model.count(decisions, contexts)
        model.adapt()
    assert bits - 1 <= model.cost <= bits + 1e-3 * 500 * num_blocks


@pytest.mark.parametrize("shape", [(0,), (1 << 16, 2)])
def test_contexts_that_do_not_fit_in_16_bits_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LocalError, match="contexts"):
        ContextModel(shape)
