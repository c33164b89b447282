"""The downlink."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.codec.bits import write_varint
from pemn.errors import MalformedFrame
from pemn.federation.moves import decode_moves, encode_moves
from pemn.wire.limits import MAX_SPEC_BYTES, max_content_bytes


def q_of(n: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return np.random.default_rng(1).integers(66, 65470, n).astype(np.uint16)


@given(st.lists(st.integers(-254, 254), max_size=200))
def test_nothing_is_lost(moves: list[int]) -> None:
    moved, q = np.array(moves, np.int16), q_of(len(moves))
    assert np.array_equal(decode_moves(encode_moves(moved, q), q), moved)


def test_no_move_is_no_byte() -> None:
    assert encode_moves(np.zeros(1000, np.int16), q_of(1000)) == b""


@given(st.lists(st.sampled_from([0, 0, 0, 1, -1, 2]), min_size=20, max_size=100), st.data())
def test_only_canonical_moves_are_accepted(moves: list[int], data: st.DataObject) -> None:
    q = q_of(len(moves))
    coded = bytearray(encode_moves(np.array(moves, np.int16), q))
    if not coded:
        return
    coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = decode_moves(bytes(coded), q)
    except MalformedFrame:
        return
    assert encode_moves(other, q) == bytes(coded)


@given(st.binary(min_size=1, max_size=40))
def test_garbage_is_refused_or_canonical(garbage: bytes) -> None:
    q = q_of(50)
    try:
        moved = decode_moves(garbage, q)
    except MalformedFrame:
        return
    assert encode_moves(moved, q) == garbage


@pytest.mark.parametrize("data", [b"\x00", write_varint(255), b"\x01\x02\x00"])
def test_lying_planes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_moves(data, q_of(50))


def test_rare_moves_cost_their_entropy() -> None:
    n = 100_000
    moved = (np.random.default_rng(2).random(n) < 0.02).astype(np.int16)
    bound = n * -(0.02 * np.log2(0.02) + 0.98 * np.log2(0.98)) / 8
    assert len(encode_moves(moved, q_of(n))) < 1.03 * bound + 64


def test_the_longest_moves_fit_into_a_message() -> None:
    n = 40_000
    moved = np.random.default_rng(4).integers(-254, 254, n, endpoint=True).astype(np.int16)
    num_bytes = len(encode_moves(moved, q_of(n)))
    assert n < num_bytes < max_content_bytes(n) - MAX_SPEC_BYTES
