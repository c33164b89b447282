"""Coded masks: nothing lost, nothing ambiguous, near the entropy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.codec import Coder, Contexts, decode, encode
from pemn.codec.bits import read_varint, write_varint
from pemn.errors import MalformedFrame


def contexts_of(ids: NDArray[np.uint8], count: int) -> Contexts:
    return Contexts(count, lambda start, stop: ids[start:stop])


def entropy_bits(bits: NDArray[np.bool_]) -> float:
    p = bits.mean()
    if p in (0, 1):
        return 0.0
    return float(-bits.size * (p * np.log2(p) + (1 - p) * np.log2(1 - p)))


BITS = st.one_of(
    st.lists(st.booleans(), max_size=80).map(lambda v: np.array(v, np.bool_)),
    st.tuples(
        st.integers(0, 3000), st.sampled_from([0, 0.001, 0.02, 0.2, 0.5, 0.9, 1]), st.integers(0, 99)
    ).map(lambda v: np.random.default_rng(v[2]).random(v[0]) < v[1]),
)


@given(BITS, st.integers(0, 99), st.integers(1, 6))
def test_decoding_gives_back_the_bits(bits: NDArray[np.bool_], seed: int, count: int) -> None:
    ids = np.random.default_rng(seed).integers(0, count, bits.size).astype(np.uint8)
    for contexts in (None, contexts_of(ids, count)):
        coded = encode(bits, contexts)
        assert np.array_equal(decode(coded, bits.size, contexts), bits)
        assert len(coded) <= bits.size // 8 + 2


@settings(max_examples=300)
@given(BITS, st.data())
def test_only_the_encoders_own_bytes_are_accepted(bits: NDArray[np.bool_], data: st.DataObject) -> None:
    ids = (np.arange(bits.size) % 3).astype(np.uint8)
    contexts = contexts_of(ids, 3)
    coded = bytearray(encode(bits, contexts))
    for _ in range(data.draw(st.integers(1, 3))):
        action = data.draw(st.sampled_from(["flip", "cut", "grow"]))
        if action == "flip" and coded:
            at = data.draw(st.integers(0, len(coded) - 1))
            coded[at] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "cut":
            del coded[data.draw(st.integers(0, len(coded))) :]
        else:
            coded += data.draw(st.binary(min_size=1, max_size=4))
    try:
        other = decode(bytes(coded), bits.size, contexts)
    except MalformedFrame:
        return
    assert encode(other, contexts) == bytes(coded)


@given(st.binary(max_size=60), st.integers(0, 300))
def test_garbage_is_refused_or_canonical(garbage: bytes, num_bits: int) -> None:
    contexts = contexts_of(np.zeros(num_bits, np.uint8), 1)
    try:
        bits = decode(garbage, num_bits, contexts)
    except MalformedFrame:
        return
    assert encode(bits, contexts) == garbage


@pytest.mark.parametrize("p", [0.001, 0.01, 0.05, 0.2, 0.3])
def test_sparse_masks_cost_little_more_than_their_entropy(p: float) -> None:
    bits = np.random.default_rng(3).random(200_000) < p
    assert 8 * len(encode(bits)) <= 1.025 * entropy_bits(bits) + 64 * 8


def test_a_dense_mask_costs_a_bit_a_weight() -> None:
    bits = np.random.default_rng(3).random(100_000) < 0.5
    coded = encode(bits)
    assert coded[0] == Coder.RAW
    assert len(coded) == 12_501


def test_contexts_pay() -> None:
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 4, 100_000).astype(np.uint8)
    bits = rng.random(100_000) < np.array([0.001, 0.02, 0.3, 0.98])[ids]
    bound = sum(entropy_bits(bits[ids == i]) for i in range(4))
    with_contexts = encode(bits, contexts_of(ids, 4))
    assert with_contexts[0] == Coder.RICE_BY_CONTEXT
    assert 8 * len(with_contexts) <= 1.025 * bound + 64 * 8
    assert len(with_contexts) < 0.6 * len(encode(bits))


def test_a_lying_count_allocates_nothing() -> None:
    # 2^28 rarer bits among 8: the bound comes from the network, not from the message.
    coded = bytes([Coder.RICE, 0]) + write_varint(1 << 28)
    with pytest.raises(MalformedFrame):
        decode(coded, 8)


@given(st.integers(0, 2**40))
def test_varints(value: int) -> None:
    data = write_varint(value)
    assert read_varint(data, 0, 2**40) == (value, len(data))
    with pytest.raises(MalformedFrame, match="ends too early"):
        read_varint(data[:-1], 0, 2**40)
    if value:
        with pytest.raises(MalformedFrame, match="wanted <="):
            read_varint(data, 0, value - 1)


def test_a_varint_has_one_form() -> None:
    with pytest.raises(MalformedFrame, match="long form"):
        read_varint(b"\x81\x00", 0, 1000)
