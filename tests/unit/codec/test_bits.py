"""Variable-length integers, packed bits, Rice codes: the small pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.codec import rice
from pemn.codec.bits import pack, read_varint, unpack, write_varint
from pemn.errors import MalformedFrame


@given(st.integers(0, 2**40))
def test_varints(value: int) -> None:
    data = write_varint(value)
    assert read_varint(data, 0, 2**40) == (value, len(data))
    assert read_varint(b"\xff" + data + b"\x07", 1, value) == (value, 1 + len(data))
    with pytest.raises(MalformedFrame, match="ends too early"):
        read_varint(data[:-1], 0, 2**40)
    if value:
        with pytest.raises(MalformedFrame, match="wanted <="):
            read_varint(data, 0, value - 1)


@given(st.binary(max_size=6), st.integers(0, 1 << 20))
def test_a_varint_has_one_form(data: bytes, largest: int) -> None:
    try:
        value, position = read_varint(data, 0, largest)
    except MalformedFrame:
        return
    assert value <= largest
    assert write_varint(value) == data[:position]


@pytest.mark.parametrize("zeros", [1, 2, 3, 5000])
def test_a_long_varint_is_refused_before_it_becomes_a_long_integer(zeros: int) -> None:
    for last in (b"\x00", b"\x01"):
        with pytest.raises(MalformedFrame, match="coded mask: number"):
            read_varint(b"\x80" * zeros + last, 0, 100)


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 4))
def test_packed_bits(values: list[bool], start_byte: int) -> None:
    bits = np.array(values, np.bool_)
    packed = pack(bits)
    assert int.from_bytes(packed.tobytes(), "little") == sum(1 << i for i, bit in enumerate(values) if bit)
    start = min(8 * start_byte, len(values) // 8 * 8)
    assert unpack(packed, start, len(values)).tolist() == values[start:]


@given(st.sets(st.integers(0, (1 << 31) - 1), max_size=50), st.booleans())
def test_rice_codes_give_back_the_positions(positions: set[int], near: bool) -> None:
    ones = np.array(sorted({position % 500 if near else position for position in positions}), np.int64)
    coded = rice.encode(ones)
    assert np.array_equal(rice.decode(coded), ones)
    assert len(coded) <= 2 + 4 * ones.size  # the limit by which the decoder refuses longer ones
    for wrong, told in ((coded[:-1], "early|K of"), (coded + bytes(4 * ones.size + 2), "left")):
        if ones.size:
            with pytest.raises(MalformedFrame, match=told):
                rice.decode(wrong)


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"", "early"), (b"\x01", "K of"), (b"\x01\x20\x01", "K of"), (b"\x81\x20\x00", "number")],
)
def test_what_is_no_rice_code_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(MalformedFrame, match=told):
        rice.decode(data)


def test_a_rice_code_takes_the_best_k() -> None:
    ones = np.arange(0, 100_000, 100)  # gaps of 99: K = 6 costs 1 + 1 + 6 bits each
    coded = rice.encode(ones)
    assert coded[2] == 6
    assert len(coded) == 3 + 1000
