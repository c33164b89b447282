"""The uplink: where a client's sampled mask differs from the one that anybody can compute.

With the shared dither u, the client's mask is `[u < p]` for its trained probabilities p, and the open one is
`[u < q]`. Only their XOR travels. A bit can flip only where u lies between q and p, so the distance of u from q says
how likely it is.

Source: docs/wire.md, "Flips".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Decider, Decisions, Reader, encode, size
from pemn.codec.bits import pack, unpack
from pemn.federation.contexts import flip_contexts, flip_shape
from pemn.federation.levels import Levels, dither
from pemn.wire.limits import VOTE_HASH_BYTES

_BLOCK_WEIGHTS = 1 << 16  # what is computed on the way stays in the cache; a multiple of 8


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

    def q(self, start: int, stop: int) -> NDArray[np.uint16]:
        """Returns the public probabilities of the weights start .. stop-1, uint16 [stop - start]."""
        return self.levels.at(self.k[start:stop], start)

    def u(self, start: int, stop: int) -> NDArray[np.uint16]:
        """Returns the dither of the weights start .. stop-1, uint16 [stop - start]."""
        return dither(self.levels.seed, self.round, self.slot, start, stop)


@dataclass(frozen=True, eq=False)
class Flips:
    """A vote: at a flip the client's mask has the bit that the open one lacks (+1), or lacks the one it has (-1).

    Which of the two it is follows from the draw, so it is not kept.

    Attributes:
        draw: What the vote was drawn with.
        mask: Where the flips are: uint8 [ceil(n / 8)], packed bits.
    """

    draw: Draw
    mask: NDArray[np.uint8]

    def hash(self, state_hash: bytes) -> bytes:
        """Returns 8 bytes that tie the flips to a run, a round, a base state and a sender.

        A coder near one bit a weight turns damage into other flips without noticing; this notices.
        """
        digest = hashlib.sha256(b"pemn flips" + state_hash + struct.pack("<I", self.draw.slot))
        digest.update(np.ascontiguousarray(self.mask).data)
        return digest.digest()[:VOTE_HASH_BYTES]


def draw_flips(trained: NDArray[np.uint16], draw: Draw) -> Flips:
    """Returns a client's vote.

    Its expectation over the dither is `p - q`, and its variance only `|p - q|` (docs/algorithm.md).

    Args:
        trained: p, uint16 [n], in 1/65536.
        draw: Of this round and slot.
    """
    mask = np.empty(-(-trained.size // 8), np.uint8)
    for start, stop in draw.levels.groups.blocks():
        u = draw.u(start, stop)
        mask[start // 8 : -(-stop // 8)] = pack((u < trained[start:stop]) ^ (u < draw.q(start, stop)))
    return Flips(draw, mask)


def encode_flips(flips: Flips) -> bytes:
    """Codes a vote."""
    levels = flips.draw.levels
    return encode(levels.num_params, _decisions(flips), flip_shape(levels.groups), levels.groups.restarts)


def flips_size(flips: Flips) -> int:
    """Returns about how many bytes `encode_flips` returns; see `pemn.codec.size`."""
    levels = flips.draw.levels
    return size(levels.num_params, _decisions(flips), flip_shape(levels.groups), levels.groups.restarts)


def _decisions(flips: Flips) -> Decider:
    draw, groups = flips.draw, flips.draw.levels.groups

    def decide(start: int, stop: int) -> list[Decisions]:
        contexts = flip_contexts(draw.q(start, stop), draw.u(start, stop), groups, start)
        return [(unpack(flips.mask, start, stop), contexts)]

    return decide


def decode_flips(data: bytes, draw: Draw) -> Flips:
    """Reads what `encode_flips` wrote.

    Args:
        data: The coded flips.
        draw: As the client had it.

    Raises:
        MalformedFrame: If the data are no canonical flip mask.
    """
    groups, mask = draw.levels.groups, np.empty(-(-draw.levels.num_params // 8), np.uint8)
    reader = Reader(data, flip_shape(groups))
    for start, stop in groups.blocks():
        contexts = flip_contexts(draw.q(start, stop), draw.u(start, stop), groups, start)
        mask[start // 8 : -(-stop // 8)] = pack(reader.read(contexts))
        reader.end_block()
    reader.finish()
    return Flips(draw, mask)


def masks(votes: Sequence[Flips], start: int, stop: int) -> NDArray[np.uint8]:
    """Returns two masks for each vote: the client's own, and where the open one has no bit.

    At each weight a vote is the sum of its two bits less 1.

    Args:
        votes: Of one network.
        start: First weight, a multiple of 8.
        stop: End.

    Returns:
        uint8 [2 * len(votes), ceil((stop - start) / 8)], packed bits; those beyond `stop` mean nothing.
    """
    out = np.empty((len(votes), 2, -(-(stop - start) // 8)), np.uint8)
    for begin in range(start, stop, _BLOCK_WEIGHTS):
        end = min(begin + _BLOCK_WEIGHTS, stop)
        here = slice((begin - start) // 8, -(-(end - start) // 8))
        there = slice(begin // 8, -(-end // 8))
        k, q = None, np.empty(0, np.uint16)
        for vote, (own, closed) in zip(votes, out, strict=True):
            draw = vote.draw
            if draw.k is not k:  # votes that are not late have one base
                k, q = draw.k, draw.q(begin, end)
            open_mask = pack(draw.u(begin, end) < q)
            np.bitwise_xor(open_mask, vote.mask[there], out=own[here])
            np.bitwise_not(open_mask, out=closed[here])
    return out.reshape(2 * len(votes), -1)
