"""Rice-coded gaps: the distances between the rarer bits, one parameter a context.

The bits of each context are coded by themselves, in their order. A context's header is one byte, `k` plus 16 if the
rarer bit is 0, and the number of rarer bits as a varint; `RAW` has no number. After all headers comes one string of
bits: for each context either its raw bits, or the quotients `gap >> k` in unary (zeros, then a one), then the
remainders of `k` bits each, lowest bit first.

Source: R. F. Rice, JPL Publication 79-22 (1979); docs/wire.md, "Coded masks".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemn.codec.bits import pack, read_varint, unpack, write_varint
from pemn.errors import MalformedFrame

_MAX_K = 15
_ZEROS = 16  # flag in the header: the rarer bit is 0
_RAW = 32

Groups = list[NDArray[np.int64]]
"""For each context in turn, the positions of its bits, ascending."""


def encode(bits: NDArray[np.bool_], groups: Groups) -> bytes:
    """Codes bits, context by context.

    Args:
        bits: bool [n].
        groups: A partition of `0 .. n-1`; empty contexts leave no trace.
    """
    headers, body = bytearray(), []
    for positions in groups:
        if positions.size:
            header, part = _encode_group(bits[positions])
            headers += header
            body.append(part)
    string = np.concatenate(body) if body else np.empty(0, np.bool_)
    return bytes(headers) + pack(string)


def decode(data: bytes, num_bits: int, groups: Groups) -> NDArray[np.bool_]:
    """Reads what `encode` wrote; the caller checks that the bytes are canonical.

    Returns:
        bool [num_bits].

    Raises:
        MalformedFrame: If the data are not such a code for these groups.
    """
    out = np.zeros(num_bits, np.bool_)
    plan, position = [], 0
    for positions in groups:
        if positions.size:
            header, position = read_varint(data, position, _RAW)
            count = 0
            if header != _RAW:
                count, position = read_varint(data, position, positions.size // 2)
            plan.append((positions, header, count))
    string = unpack(data[position:], 8 * (len(data) - position))
    ones = np.flatnonzero(string)
    cursor = 0
    for positions, header, count in plan:
        part, cursor = _decode_group(string, ones, cursor, positions.size, header, count)
        out[positions] = part
    if len(data) - position != -(-cursor // 8) or string[cursor:].any():
        raise MalformedFrame("coded mask: trailing bits")
    return out


def _encode_group(bits: NDArray[np.bool_]) -> tuple[bytes, NDArray[np.bool_]]:
    num_ones = int(np.count_nonzero(bits))
    zeros_are_rare = 2 * num_ones > bits.size
    rare = np.flatnonzero(bits != zeros_are_rare)
    gaps = np.diff(rare, prepend=-1) - 1
    costs = [int((gaps >> k).sum()) + rare.size * (1 + k) for k in range(_MAX_K + 1)]
    k = int(np.argmin(costs))
    number = write_varint(rare.size)
    if costs[k] + 8 * len(number) >= bits.size:
        return bytes([_RAW]), bits
    ends = np.cumsum((gaps >> k) + 1)
    unary = np.zeros(int(ends[-1]) if rare.size else 0, np.bool_)
    unary[ends - 1] = True
    remainders = (gaps[:, None] >> np.arange(k)) & 1
    header = bytes([k + _ZEROS * zeros_are_rare]) + number
    return header, np.concatenate([unary, remainders.ravel().astype(np.bool_)])


def _decode_group(
    string: NDArray[np.bool_], ones: NDArray[np.int64], cursor: int, size: int, header: int, count: int
) -> tuple[NDArray[np.bool_], int]:
    if header == _RAW:
        if cursor + size > string.size:
            raise MalformedFrame("coded mask ends too early")
        return string[cursor : cursor + size], cursor + size
    k, zeros_are_rare = header % 16, header >= _ZEROS
    out = np.full(size, zeros_are_rare)
    if count == 0:
        return out, cursor
    first = int(np.searchsorted(ones, cursor))
    ends = ones[first : first + count]
    if ends.size < count or int(ends[-1]) + 1 + count * k > string.size:
        raise MalformedFrame("coded mask ends too early")
    quotients = np.diff(ends, prepend=cursor - 1) - 1
    cursor = int(ends[-1]) + 1
    remainders = string[cursor : cursor + count * k].reshape(count, k) @ (1 << np.arange(k))
    rare = np.cumsum((quotients << k) + remainders + 1) - 1
    if int(rare[-1]) >= size:
        raise MalformedFrame("coded mask: gap", got=int(rare[-1]), wanted=f"< {size}")
    out[rare] = not zeros_are_rare
    return out, cursor + count * k
