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


def read_varint(data: bytes | memoryview, position: int, largest: int) -> tuple[int, int]:
    """Reads what `write_varint` wrote.

    Returns:
        The value and the position after it.

    Raises:
        MalformedFrame: If the data end, the value is above `largest` or longer than it need be.
    """
    value = 0
    for shift in range(0, largest.bit_length() + 7, 7):
        if position >= len(data):
            raise MalformedFrame("coded mask ends too early")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if value > largest:
            raise MalformedFrame("coded mask: number", got=value, wanted=f"<= {largest}")
        if byte < 128:
            if byte == 0 and shift:
                break
            return value, position
    raise MalformedFrame("coded mask: number in a long form")


def pack(bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns bits as bytes, lowest bit first, the last byte filled with zeros."""
    return np.packbits(bits, bitorder="little")


def unpack(packed: NDArray[np.uint8], start: int, stop: int) -> NDArray[np.bool_]:
    """Returns bits `start .. stop-1` of packed bits, bool [stop - start]; `start` is a multiple of 8."""
    part = packed[start // 8 : -(-stop // 8)]
    return np.unpackbits(part, bitorder="little", count=stop - start).view(np.bool_)
