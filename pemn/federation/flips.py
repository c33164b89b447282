"""The uplink: where a client's sampled mask differs from the one that anybody can compute.

With the shared dither u, the client's mask is `[u < p]` for its trained probabilities p, and the open one is
`[u < q]`. Only their XOR travels. A bit can flip only where u lies between q and p, so the distance of u from q says
how likely it is.

Source: docs/wire.md, "Flips".
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Decisions, Reader, encode
from pemn.codec.bits import pack, unpack
from pemn.federation.contexts import flip_contexts, flip_shape
from pemn.federation.levels import Levels, dither
from pemn.wire.limits import FLIPS_HASH_BYTES

_HASHED_BYTES = 1 << 16  # of a flip mask at a time


@dataclass(frozen=True, eq=False)
class Draw:
    """What both ends know before a vote: public probabilities, and the dither of one round and slot.

    Attributes:
        levels: Of the network.
        k: Public state that the client trains from, int8 [n].
        round: Which round it votes in, from 1.
        slot: Who votes.
    """

    levels: Levels
    k: NDArray[np.int8]
    round: int
    slot: int

    def block(self, start: int, stop: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Returns q and u of the weights start .. stop-1, uint16 [stop - start] each."""
        u = dither(self.levels.seed, self.round, self.slot, start, stop)
        return self.levels.at(self.k[start:stop], start), u


@dataclass(frozen=True, eq=False)
class Flips:
    """A vote: packed bits [ceil(n / 8)], never both at one weight.

    Attributes:
        raised: Where the client's mask has a bit that the open one lacks: +1.
        lowered: Where it lacks a bit: -1.
    """

    raised: NDArray[np.uint8]
    lowered: NDArray[np.uint8]

    @classmethod
    def none(cls, num_params: int) -> Flips:
        """Returns the vote of a client that has learnt nothing."""
        return cls(*np.zeros((2, -(-num_params // 8)), np.uint8))

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The flip mask, packed."""
        return self.raised | self.lowered

    def hash(self, state_hash: bytes, slot: int) -> bytes:
        """Returns 8 bytes that tie the flips to a run, a round, a base state and a sender.

        A coder near one bit a weight turns damage into other flips without noticing; this notices.
        """
        digest = hashlib.sha256(b"pemn flips" + state_hash + struct.pack("<I", slot))
        for start in range(0, self.raised.size, _HASHED_BYTES):
            part = slice(start, start + _HASHED_BYTES)
            digest.update((self.raised[part] | self.lowered[part]).tobytes())
        return digest.digest()[:FLIPS_HASH_BYTES]

    def _put(self, start: int, stop: int, flips: NDArray[np.bool_], open_mask: NDArray[np.bool_]) -> None:
        here = slice(start // 8, -(-stop // 8))
        self.raised[here] = pack(flips & ~open_mask)
        self.lowered[here] = pack(flips & open_mask)


def draw_flips(trained: NDArray[np.uint16], draw: Draw) -> Flips:
    """Returns a client's vote.

    Its expectation over the dither is `p - q`, and its variance only `|p - q|` (docs/algorithm.md).

    Args:
        trained: p, uint16 [n], in 1/65536.
        draw: Of this round and slot.
    """
    flips = Flips.none(trained.size)
    for start, stop in draw.levels.groups.blocks():
        q, u = draw.block(start, stop)
        open_mask = u < q
        flips._put(start, stop, (u < trained[start:stop]) ^ open_mask, open_mask)
    return flips


def encode_flips(flips: Flips, draw: Draw) -> bytes:
    """Codes a vote.

    Args:
        flips: What `draw_flips` returned.
        draw: The same.
    """
    mask, groups = flips.mask, draw.levels.groups

    def decide(start: int, stop: int) -> list[Decisions]:
        return [(unpack(mask, start, stop), flip_contexts(*draw.block(start, stop), groups, start))]

    return encode(draw.levels.num_params, decide, flip_shape(groups), groups.restarts)


def decode_flips(data: bytes, draw: Draw) -> Flips:
    """Reads what `encode_flips` wrote.

    Args:
        data: The coded flips.
        draw: As the client had it.

    Raises:
        MalformedFrame: If the data are no canonical flip mask.
    """
    groups = draw.levels.groups
    reader, flips = Reader(data, flip_shape(groups)), Flips.none(draw.levels.num_params)
    for start, stop in groups.blocks():
        q, u = draw.block(start, stop)
        flips._put(start, stop, reader.read(flip_contexts(q, u, groups, start)), u < q)
        reader.end_block()
    reader.finish()
    return flips
