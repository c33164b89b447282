"""Rice-coded gaps: the distances between ones, for sequences with few of them.

The number of ones as a varint; if there are any, K in a byte and one string of packed bits: the quotients `gap >> K`
in unary (zeros, then a one), then the remainders of K bits each, lowest bit first.

Source: R. F. Rice, JPL Publication 79-22 (1979); docs/wire.md, "Rice".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemn.codec.bits import pack, read_varint, write_varint
from pemn.errors import MalformedFrame

MAX_ONES = 4096
"""So a list of them takes little room; with more, rANS is seldom longer (docs/wire.md, "Coded decisions")."""

# K is 0 .. 31. So are sequences shorter than 2^31, and then a code with the best K has at most 32 bits for each one.
_PIECE_BITS = 8192
_NUM_KS = 32


def encode(ones: NDArray[np.int64]) -> bytes:
    """Codes where the ones are.

    Args:
        ones: Ascending positions, int64 [0 .. MAX_ONES].
    """
    number = write_varint(ones.size)
    if not ones.size:
        return number
    gaps = np.diff(ones, prepend=-1) - 1
    k = int(np.argmin([_num_bits(gaps, k) for k in range(_NUM_KS)]))
    ends = np.cumsum((gaps >> k) + 1)
    unary = np.zeros(int(ends[-1]), np.bool_)
    unary[ends - 1] = True
    low_bytes = gaps.astype("<u4").view(np.uint8).reshape(-1, 4)
    remainders = np.unpackbits(low_bytes, axis=1, count=k, bitorder="little").view(np.bool_)
    return number + bytes([k]) + pack(np.concatenate([unary, remainders.ravel()])).tobytes()


def _num_bits(gaps: NDArray[np.int64], k: int) -> int:
    return int((gaps >> k).sum()) + gaps.size * (1 + k)


def decode(data: bytes | memoryview) -> NDArray[np.int64]:
    """Reads what `encode` wrote; the caller checks that the bytes are canonical.

    Returns:
        Ascending positions, int64.

    Raises:
        MalformedFrame: If the data are no such code.
    """
    count, position = read_varint(data, 0, MAX_ONES)
    if count == 0:
        return np.empty(0, np.int64)
    if position == len(data) or data[position] >= _NUM_KS:
        raise MalformedFrame("coded mask: K of a Rice code")
    k = data[position]
    position += 1
    if len(data) - position > -(-_NUM_KS * count // 8):
        raise MalformedFrame("coded mask: bytes left")
    string = np.unpackbits(np.frombuffer(data, np.uint8, offset=position), bitorder="little")
    ends = _first_ones(string, count)
    if ends.size < count or int(ends[-1]) + 1 + count * k > string.size:
        raise MalformedFrame("coded mask ends too early")
    cursor = int(ends[-1]) + 1
    quotients = np.diff(ends, prepend=-1) - 1
    wide = np.zeros((count, 32), np.uint8)
    wide[:, :k] = string[cursor : cursor + count * k].reshape(count, k)
    remainders = np.packbits(wide, axis=1, bitorder="little").view("<u4")[:, 0]
    ones: NDArray[np.int64] = np.cumsum((quotients << k) + remainders + 1) - 1
    return ones


def _first_ones(string: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Returns where the first ones are, and looks no further: each takes eight bytes, and all may be ones."""
    found, missing, start = [np.empty(0, np.int64)], count, 0
    while missing and start < string.size:
        found.append(np.flatnonzero(string[start : start + _PIECE_BITS])[:missing] + start)
        missing, start = missing - found[-1].size, start + _PIECE_BITS
    return np.concatenate(found)
