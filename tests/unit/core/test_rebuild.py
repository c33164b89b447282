"""Weights from spec and mask: the same bits as the plain definition."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.errors import LocalError
from pemn.mask import Mask
from pemn.rebuild import frozen_weights, rebuild, weights_sha256
from tests.networks import model_spec

SHAPES = [(3, 5), (7, 9), (16, 16), (1, 1), (5, 3, 3, 3)]
STRATEGIES = ["full", "one-layer", "mp", "rp:0.5", "rp:0.03", "rp:0.001"]


@given(
    st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4),
    st.sampled_from(STRATEGIES),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)
def test_equals_the_definition(shapes: list[tuple[int, ...]], strategy: str, seed: int, draw: int) -> None:
    spec = model_spec(*shapes, strategy=strategy, seed=seed)
    bits = np.random.default_rng(draw).random(spec.num_params) < 0.5
    weights = rebuild(spec, Mask.from_bits(bits, spec.sizes))
    plain = np.where(bits, frozen_weights(spec), np.float32(0))
    assert weights.tobytes() == plain.tobytes()  # also tells +0.0 from -0.0


@pytest.mark.parametrize("strategy", ["full", "rp:1e-3"])
def test_layers_longer_than_a_block(strategy: str) -> None:
    spec = model_spec((601, 599), (10, 601), strategy=strategy)
    bits = np.random.default_rng(1).random(spec.num_params) < 0.3
    weights = rebuild(spec, Mask.from_bits(bits, spec.sizes))
    assert weights.tobytes() == np.where(bits, frozen_weights(spec), np.float32(0)).tobytes()


def test_a_weight_is_value_times_scale() -> None:
    spec = model_spec((10, 64))
    weights = frozen_weights(spec)
    assert set(np.abs(weights).tolist()) == {spec.layers[0].scale} == {0.25}


def test_golden_weights() -> None:
    """Written once: a change here is a change of the wire format (docs/wire.md, "Weights")."""
    spec = model_spec((16, 64), (10, 16), strategy="rp:1e-1")
    mask = Mask.from_bits(np.arange(spec.num_params) % 3 == 0, spec.sizes)
    assert (
        weights_sha256(rebuild(spec, mask)).hex()
        == "60ae9b186f594e0370144ac630ce968e52c7fe110609e1c1105d6a21bd44e577"
    )


def test_the_hash_is_of_little_endian_float32() -> None:
    assert weights_sha256(np.ones(1, np.float32)) == hashlib.sha256(b"\x00\x00\x80\x3f").digest()


def test_a_foreign_mask_is_refused() -> None:
    spec = model_spec((4, 4))
    with pytest.raises(LocalError, match="mask of another network"):
        rebuild(spec, Mask.from_bits(np.ones(8, np.bool_), (8,)))
