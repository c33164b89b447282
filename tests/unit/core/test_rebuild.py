"""Weights from spec and mask: the same bits as the plain definition."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.distribution import Distribution, draw
from pemn.errors import LocalError
from pemn.generator import Purpose, child
from pemn.mask import Mask
from pemn.rebuild import apply_mask, frozen_weights, named_tensors, rebuild, weights_sha256
from pemn.spec import FloatTensor
from tests.networks import model_spec

SHAPES = [(3, 5), (7, 9), (16, 16), (1, 1), (5, 3, 3, 3)]
STRATEGIES = ["full", "one-layer", "mp", "rp:0.5", "rp:0.03", "rp:0.001"]


@given(
    st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4),
    st.sampled_from(STRATEGIES),
    st.sampled_from(Distribution),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)
def test_equals_the_definition(
    shapes: list[tuple[int, ...]], strategy: str, distribution: Distribution, seed: int, mask_seed: int
) -> None:
    spec = replace(model_spec(*shapes, strategy=strategy, seed=seed), distribution=distribution)
    bits = np.random.default_rng(mask_seed).random(spec.num_params) < 0.5
    weights = rebuild(spec, Mask.from_bits(bits, spec.sizes))
    plain = np.where(bits, frozen_weights(spec), np.float32(0))
    assert weights.tobytes() == plain.tobytes()  # also tells +0.0 from -0.0
    assert apply_mask(frozen_weights(spec), Mask.from_bits(bits, spec.sizes)).tobytes() == plain.tobytes()


@pytest.mark.parametrize("strategy", ["full", "one-layer", "mp", "rp:0.9", "rp:1e-3"])
def test_layers_longer_than_a_block(strategy: str) -> None:
    spec = model_spec((601, 599), (10, 601), strategy=strategy)
    bits = np.random.default_rng(1).random(spec.num_params) < 0.3
    weights = rebuild(spec, Mask.from_bits(bits, spec.sizes))
    assert weights.tobytes() == np.where(bits, frozen_weights(spec), np.float32(0)).tobytes()


def test_a_weight_is_value_times_scale() -> None:
    spec = model_spec((10, 64))
    weights = frozen_weights(spec)
    assert set(np.abs(weights).tolist()) == {spec.layers[0].scale} == {0.25}


@pytest.mark.parametrize("distribution", [Distribution.UNIFORM, Distribution.NORMAL])
def test_a_generated_weight_is_a_binary16_value_times_scale_rounded_once(distribution: Distribution) -> None:
    spec = replace(model_spec((10, 49), strategy="full"), distribution=distribution)
    scale = spec.layers[0].scale
    values = draw(distribution, child(spec.seed, Purpose.WEIGHTS, 0), 0, 490).astype(np.float64)
    exact = values * scale  # 11 and 24 bits: float64 holds the product as it is
    assert np.array_equal(frozen_weights(spec), exact.astype(np.float32))
    assert len(set(exact.tolist())) > 400


GOLDEN = {
    Distribution.SIGNED: "60ae9b186f594e0370144ac630ce968e52c7fe110609e1c1105d6a21bd44e577",
    Distribution.UNIFORM: "d10c7e695186a9c8f007cd951282d6a589bcbb89a70660a04f4f3c7cbe61b3c4",
    Distribution.NORMAL: "c9f0baef8d096b1ded2a39b766bf0ab24503a20dabba86b1aa9c28d2d695d01a",
}


@pytest.mark.parametrize("distribution", Distribution)
def test_golden_weights(distribution: Distribution) -> None:
    """Written once: a change here is a change of the wire format (docs/wire.md, "Weights")."""
    spec = replace(model_spec((16, 64), (10, 16), strategy="rp:1e-1"), distribution=distribution)
    mask = Mask.from_bits(np.arange(spec.num_params) % 3 == 0, spec.sizes)
    assert weights_sha256(rebuild(spec, mask)).hex() == GOLDEN[distribution]


def test_masked_weights_are_plus_zero() -> None:
    spec = replace(model_spec((30, 30)), distribution=Distribution.NORMAL)
    weights = rebuild(spec, Mask.from_bits(np.zeros(900, np.bool_), spec.sizes))
    assert weights.tobytes() == bytes(4 * 900)


def test_tensors_by_name_are_views_in_the_order_of_the_spec() -> None:
    floats = (FloatTensor("position", (2, 3)), FloatTensor("gain", ()))
    spec = replace(model_spec((3, 5), (2, 3)), floats=floats)
    weights, numbers = np.arange(21, dtype=np.float32), np.arange(100, 107, dtype=np.float32)
    named = named_tensors(spec, weights, numbers)
    assert {name: array.shape for name, array in named.items()} == spec.shapes
    assert [int(array.ravel()[0]) for array in named.values()] == [0, 15, 100, 106]
    assert all(np.shares_memory(array, weights) for array in list(named.values())[:2])
    assert list(named_tensors(model_spec((3, 5), (2, 3)), weights, numbers[:0])) == list(named)[:2]


def test_the_hash_is_of_little_endian_float32() -> None:
    assert weights_sha256(np.ones(1, np.float32)) == hashlib.sha256(b"\x00\x00\x80\x3f").digest()


def test_a_foreign_mask_is_refused() -> None:
    spec = model_spec((4, 4))
    with pytest.raises(LocalError, match="mask of another network"):
        rebuild(spec, Mask.from_bits(np.ones(8, np.bool_), (8,)))
    with pytest.raises(LocalError, match="mask of another network: got 8"):
        apply_mask(frozen_weights(spec), Mask.from_bits(np.ones(8, np.bool_), (8,)))
