"""Mask bits <-> bytes: several coders, one chooser.

A coded mask begins with a byte that names the coder; the rest is that coder's. The encoder takes whichever is
smallest, and the decoder accepts only what the encoder would have made, so that no two byte strings mean the same
mask.

Source: docs/wire.md, "Coded masks".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pemn.codec import rice
from pemn.codec.bits import pack, unpack
from pemn.errors import MalformedFrame

__all__ = ["Coder", "Contexts", "decode", "encode"]


class Coder(IntEnum):
    """First byte of a coded mask."""

    RAW = 0
    RICE = 1
    RICE_BY_CONTEXT = 2


@dataclass(frozen=True)
class Contexts:
    """What both ends know about each bit before it is sent.

    Bits of one context are expected to be alike. Both ends must compute the same ids, from integers alone.

    Attributes:
        count: Number of contexts, 1 .. 256.
        ids: `ids(start, stop)` gives uint8 [stop - start], each below `count`.
    """

    count: int
    ids: Callable[[int, int], NDArray[np.uint8]]


def encode(bits: NDArray[np.bool_], contexts: Contexts | None = None) -> bytes:
    """Codes a mask as shortly as any of the coders can.

    Args:
        bits: bool [n].
        contexts: What both ends know about the bits.

    Returns:
        At most n / 8 + 2 bytes.
    """
    candidates = {Coder.RAW: pack(bits), Coder.RICE: rice.encode(bits, _one_group(bits.size))}
    if contexts is not None:
        candidates[Coder.RICE_BY_CONTEXT] = rice.encode(bits, _groups(contexts, bits.size))
    best = min(candidates, key=lambda coder: (len(candidates[coder]), coder))
    return bytes([best]) + candidates[best]


def decode(data: bytes, num_bits: int, contexts: Contexts | None = None) -> NDArray[np.bool_]:
    """Reads what `encode` wrote with the same contexts.

    Args:
        data: The coded mask.
        num_bits: n, from the network's spec, never from the message.
        contexts: As the encoder had them.

    Returns:
        bool [num_bits].

    Raises:
        MalformedFrame: If `encode` would not have written these bytes.
    """
    if not data or len(data) > num_bits // 8 + 2:
        raise MalformedFrame("coded mask", got=f"{len(data)} bytes", wanted=f"1 .. {num_bits // 8 + 2}")
    body = data[1:]
    if data[0] == Coder.RAW:
        bits = unpack(body, num_bits)
    elif data[0] == Coder.RICE:
        bits = rice.decode(body, num_bits, _one_group(num_bits))
    elif data[0] == Coder.RICE_BY_CONTEXT and contexts is not None:
        bits = rice.decode(body, num_bits, _groups(contexts, num_bits))
    else:
        raise MalformedFrame("coder of a mask", got=data[0])
    if encode(bits, contexts) != data:
        raise MalformedFrame("coded mask is not in canonical form")
    return bits


def _one_group(num_bits: int) -> rice.Groups:
    return [np.arange(num_bits)]


def _groups(contexts: Contexts, num_bits: int) -> rice.Groups:
    ids = contexts.ids(0, num_bits)
    order = np.argsort(ids, kind="stable")
    ends = np.cumsum(np.bincount(ids, minlength=contexts.count))[:-1]
    return np.split(order, ends)
