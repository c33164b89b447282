"""Bytes and bits that the coders share: variable-length integers and packed bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemn.errors import MalformedFrame


def write_varint(value: int) -> bytes:
    """Returns a non-negative integer in LEB128: seven bits a byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, position: int, largest: int) -> tuple[int, int]:
    """Reads what `write_varint` wrote.

    Returns:
        The value and the position after it.

    Raises:
        MalformedFrame: If the data end, the value is above `largest` or longer than it need be.
    """
    value = shift = 0
    while True:
        if position >= len(data):
            raise MalformedFrame("coded mask ends too early")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if value > largest:
            raise MalformedFrame("coded mask: number", got=value, wanted=f"<= {largest}")
        if byte < 128:
            if byte == 0 and shift:
                raise MalformedFrame("coded mask: number in a long form")
            return value, position
        shift += 7


def pack(bits: NDArray[np.bool_]) -> bytes:
    """Returns bits as bytes, lowest bit first, the last byte filled with zeros."""
    return np.packbits(bits, bitorder="little").tobytes()


def unpack(data: bytes, num_bits: int) -> NDArray[np.bool_]:
    """Reads what `pack` wrote.

    Returns:
        bool [num_bits].

    Raises:
        MalformedFrame: If the length is another, or a filling bit is set.
    """
    if len(data) != -(-num_bits // 8):
        raise MalformedFrame("packed bits", got=f"{len(data)} bytes", wanted=f"{-(-num_bits // 8)}")
    if num_bits % 8 and data[-1] >> (num_bits % 8):
        raise MalformedFrame("packed bits with filling bits set")
    raw = np.frombuffer(data, np.uint8)
    return np.unpackbits(raw, bitorder="little", count=num_bits).astype(np.bool_)
