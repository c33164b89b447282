"""How near the codes come to the entropy, and how little room decoding takes."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from pemn.codec import Coder, Reader, blocks, encode
from tests.unit.codec.sequences import Sequence, draw


def bucketed(num_weights: int, a: float) -> Sequence:
    """Masks whose probabilities are Beta(a, a), in 64 contexts of equal steps of the arcsine of their root."""
    random = np.random.default_rng(7)
    theta = random.beta(a, a, (1, num_weights))
    contexts = np.minimum(64 * 2 / np.pi * np.arcsin(np.sqrt(theta)), 63).astype(np.uint16)
    return Sequence(random.random(theta.shape) < theta, contexts, (64,))


def static_bits(sequence: Sequence) -> float:
    """Entropy of the decisions when the share of ones in each context is known: sum of n_c h(ones_c / n_c)."""
    decisions, contexts = sequence.decisions[0], sequence.contexts[0]
    bits = 0.0
    for count in (contexts, contexts[decisions], contexts[~decisions]):
        n = np.bincount(count).astype(np.float64)
        sign = 1 if count is contexts else -1
        bits += sign * float((n * np.log2(n, out=np.zeros_like(n), where=n > 0)).sum())
    return bits


def adaptive_bits(sequence: Sequence) -> float:
    """Length of an ideal code with the probabilities of docs/wire.md, "Probabilities", in floats without rounding."""
    shape, bits = sequence.shape, 0.0
    decisions, contexts = sequence.decisions[0], sequence.contexts[0]
    zeros, ones = np.zeros((2, *shape))
    for start, stop in blocks(sequence.num_weights):
        p: NDArray[np.float64] = np.array(0.5)
        for num_digits in range(len(shape) + 1):
            rest = tuple(range(num_digits, len(shape)))
            borrowed = 16 if num_digits > 1 else 2
            n1, n0 = ones.sum(rest), zeros.sum(rest)
            p = (n1 + borrowed * (p[..., None] if num_digits else p)) / (n1 + n0 + borrowed)
        p = p.clip(1 / 32_768, 1 - 1 / 32_768).ravel()
        here, which = decisions[start:stop], contexts[start:stop]
        bits -= float(np.log2(np.where(here, p[which], 1 - p[which])).sum())
        ones += np.bincount(which[here], minlength=p.size).reshape(shape)
        zeros += np.bincount(which[~here], minlength=p.size).reshape(shape)
    return bits


def allowed_bytes(bits: float, num_weights: int) -> float:
    return (1.005 if num_weights >= 2_000_000 else 1.01) * bits / 8 + 64


@pytest.mark.parametrize("num_weights", [100_000, 2_000_000])
@pytest.mark.parametrize("kind", ["p 0.5", "p 0.1", "p 0.01", "p 0.001", "a 0.05", "a 0.1", "a 0.3"])
def test_codes_are_as_long_as_the_entropy(kind: str, num_weights: int) -> None:
    family, value = kind.split()
    sequence = draw(1, num_weights, float(value)) if family == "p" else bucketed(num_weights, float(value))
    coded, adaptive = sequence.encode(), adaptive_bits(sequence)
    assert len(coded) <= allowed_bytes(adaptive, num_weights)
    assert coded[0] == Coder.RICE or len(coded) >= 0.999 * adaptive / 8  # or one of the two is wrong
    # Learning the shares of 64 contexts costs 60 to 90 bytes; there is room for them, at Beta(0.05) just so.
    assert len(coded) <= allowed_bytes(static_bits(sequence), num_weights)


@pytest.mark.parametrize("num_ones", [0, 1, 7])
def test_next_to_nothing_takes_a_few_bytes(num_ones: int) -> None:
    decisions = np.zeros((1, 2_000_000), np.bool_)
    decisions[0, 1000 * np.arange(num_ones) ** 2] = True
    assert len(Sequence(decisions, np.zeros_like(decisions, np.uint16)).encode()) <= 2 + 3 * num_ones


def test_learning_thousands_of_contexts_costs_some_bits_each() -> None:
    """4096 contexts, each with its own share of ones that nothing else tells: the static entropy is out of reach."""
    sequence = draw(1, 2_000_000, 0.2, (32, 16, 8))
    size, num_contexts = len(sequence.encode()), 32 * 16 * 8
    assert size <= allowed_bytes(adaptive_bits(sequence), sequence.num_weights)
    # A parameter that is learnt from m samples costs about log2(m) / 2 bits.
    learning = num_contexts * math.log2(sequence.num_weights / num_contexts) / 2
    over = 8 * size - static_bits(sequence)
    assert 0.5 * learning < over < 1.5 * learning + 0.005 * static_bits(sequence)


@pytest.mark.parametrize(("share", "coder"), [(0.00003, Coder.RICE), (0.02, Coder.RANS), (0.5, Coder.RAW)])
def test_decoding_takes_little_room_whatever_the_number_of_weights(share: float, coder: Coder) -> None:
    num_weights, shape = 20_000_000, (32, 16, 8)
    most = max(stop - start for start, stop in blocks(num_weights))
    a_block = np.arange(most) * share % 1 < share
    contexts = np.zeros(most, np.uint16)
    coded = encode(
        num_weights, lambda start, stop: [(a_block[: stop - start], contexts[: stop - start])], shape
    )
    assert coded[0] == coder
    tracemalloc.start()
    try:
        reader = Reader(coded, shape)
        for start, stop in blocks(num_weights):
            assert np.array_equal(reader.read(contexts[: stop - start]), a_block[: stop - start])
            reader.end_block()
        reader.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(coded) + (3 << 20)
