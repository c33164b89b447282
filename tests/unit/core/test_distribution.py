"""Signed, uniform and normal values: what they are, by definition and by the crowd."""

from __future__ import annotations

import hashlib
import math
import struct
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.distribution import Distribution, draw, normal_table
from pemn.generator import word

KEYS = st.integers(0, 2**64 - 1)


def half(value: float) -> float:
    """To binary16, by the standard library."""
    rounded: float = struct.unpack("<e", struct.pack("<e", value))[0]
    return rounded


def single(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def one(distribution: Distribution, key: int, index: int) -> float:
    """A value as docs/wire.md defines it."""
    if distribution is Distribution.SIGNED:
        return -1.0 if word(key, index // 64) >> index % 64 & 1 else 1.0
    u = word(key, index // 4) >> 16 * (index % 4) & 0xFFFF
    if distribution is Distribution.NORMAL:
        return half(NormalDist().inv_cdf((u + 0.5) / 65536))
    return half(single((2 * u - 65535) * single(math.sqrt(3) / 65536)))


@given(st.sampled_from(Distribution), KEYS, st.integers(0, 1000), st.integers(0, 40))
def test_any_slice_is_what_the_definition_says(
    distribution: Distribution, key: int, start: int, count: int
) -> None:
    found = draw(distribution, key, start, count)
    assert found.dtype == np.float32
    assert found.tolist() == [one(distribution, key, i) for i in range(start, start + count)]


@pytest.mark.parametrize("distribution", Distribution)
def test_mean_and_variance(distribution: Distribution) -> None:
    values = draw(distribution, 7, 0, 1 << 20).astype(np.float64)
    assert abs(values.mean()) < 5 / 1024
    assert values.var() == pytest.approx(1, abs=0.01)


def test_the_normal_table() -> None:
    """It is a constant; here is what of. No quantile is so close to a tie that a libm's last digit could matter."""
    wanted = np.array([NormalDist().inv_cdf((i + 0.5) / 65536) for i in range(65536)])
    table = normal_table().astype(np.float16)
    assert np.array_equal(table, normal_table())
    assert np.array_equal(table, wanted.astype(np.float16))
    for neighbour in (np.inf, -np.inf):
        tie = (table.astype(np.float64) + np.nextafter(table, np.float16(neighbour))) / 2
        assert np.abs(wanted - tie).min() > 1e-14
        assert (np.abs(wanted - tie) / np.abs(wanted)).min() > 1e-9
    assert np.array_equal(table, -table[::-1])
    assert (np.diff(table) >= 0).all()
    assert hashlib.sha256(table.astype("<f2").tobytes()).hexdigest() == SHA256


SHA256 = "c84e2ee9a90a7a594e0c266c687ccb9dbfe20d0c0040f95fe05e2511d533ad11"
