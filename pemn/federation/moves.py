"""The downlink: how far the integers k of the public state have moved, as pairs of binary masks.

Plane j says which k moved by at least j steps, coded only where plane j-1 is set; behind plane 1 comes the mask of
directions of those that moved. One form serves the next round, a client that missed some, and a keyframe (the moves
since round 0).

    moves = planes varint, then for each mask: length varint, coded mask

Source: docs/wire.md, "Moves".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Contexts, decode, encode
from pemn.codec.bits import read_varint, write_varint
from pemn.errors import MalformedFrame
from pemn.federation.levels import MAX_STEPS, NUM_ARCSINE_BUCKETS, arcsine_bucket

_MAX_PLANES = 2 * MAX_STEPS


def encode_moves(moved: NDArray[np.int16], base: NDArray[np.uint16]) -> bytes:
    """Codes the change of k.

    Args:
        moved: int16 [n], new k minus old k, each -254 .. 254.
        base: Probabilities that the receiver has, uint16 [n], in 1/65536.

    Returns:
        The planes; empty if nothing moved.
    """
    steps = np.abs(moved)
    planes = int(steps.max(initial=0))
    if planes == 0:
        return b""
    buckets, out = arcsine_bucket(base), [write_varint(planes)]
    for j in range(1, planes + 1):
        _append(out, steps >= j, buckets)
        inside = steps >= j
        steps, moved, buckets = steps[inside], moved[inside], buckets[inside]
        if j == 1:
            _append(out, moved < 0, buckets)
    return b"".join(out)


def decode_moves(data: bytes, base: NDArray[np.uint16]) -> NDArray[np.int16]:
    """Reads what `encode_moves` wrote.

    Returns:
        int16 [n].

    Raises:
        MalformedFrame: If the data are no canonical moves.
    """
    moved = np.zeros(base.size, np.int16)
    if not data:
        return moved
    buckets, where = arcsine_bucket(base), np.arange(base.size)
    planes, position = read_varint(data, 0, _MAX_PLANES)
    sign = np.ones(base.size, np.int16)
    for j in range(1, planes + 1):
        inside, position = _read(data, position, buckets)
        if not inside.any():
            raise MalformedFrame("moves: empty plane", got=j)
        where, buckets = where[inside], buckets[inside]
        if j == 1:
            down, position = _read(data, position, buckets)
            sign[where[down]] = -1
        moved[where] = j
    if position != len(data) or planes == 0:
        raise MalformedFrame("moves: trailing bytes")
    return moved * sign


def _append(out: list[bytes], bits: NDArray[np.bool_], buckets: NDArray[np.uint8]) -> None:
    coded = encode(bits, _contexts(buckets))
    out += [write_varint(len(coded)), coded]


def _read(data: bytes, position: int, buckets: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], int]:
    length, position = read_varint(data, position, len(data) - position)
    coded = data[position : position + length]
    return decode(coded, buckets.size, _contexts(buckets)), position + length


def _contexts(buckets: NDArray[np.uint8]) -> Contexts:
    return Contexts(NUM_ARCSINE_BUCKETS, lambda start, stop: buckets[start:stop])
