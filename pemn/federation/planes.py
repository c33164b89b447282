"""One signed counter a weight, stored bit by bit: where votes are added up.

Plane `j` holds bit `j` of every weight's counter (two's complement, so the last plane is the sign), packed as masks
are. One bitwise operation on two byte arrays is then a step of eight counters a byte, and memory grows with the
logarithm of the number of votes. This is a bit-sliced ("vertical") counter, fed by a tree of carry-save adders as in
Harley and Seal's population count, but for votes of -1, 0 and +1 instead of bits.

Source: docs/wire.md, "Tally".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Packed: TypeAlias = NDArray[np.uint8]

# flips and signs: a vote is 0 where its flip is 0, else -1 where its sign is 1 and +1 where it is 0.
_Vote: TypeAlias = tuple[Packed, Packed]

GROUP = 16
"""Votes that are added at once: more hardly cost less each, and whoever gathers them has to keep them."""

# Bytes of a plane that are worked on at a time. More, and what a step touches leaves the core's own cache; fewer, and
# numpy's fixed cost a call shows (benchmarks/tally.py).
_ADD_BLOCK_BYTES = 128 << 10
_UNPACK_BLOCK_BYTES = 16 << 10


class BitPlanes:
    """A signed counter for each bit of a packed array, at first 0.

    Args:
        num_bytes: Length of the packed arrays.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._num_votes = 0
        self._planes: list[Packed] = [np.zeros(num_bytes, np.uint8)]
        self._scratch = np.empty((1 + GROUP + GROUP // 2, min(num_bytes, _ADD_BLOCK_BYTES)), np.uint8)

    def add(self, votes: Sequence[tuple[Packed, Packed]]) -> None:
        """Moves every counter by -1, 0 or +1 a vote; it is fastest with multiples of GROUP votes.

        Args:
            votes: Pairs of uint8 [num_bytes]: the counters that go up and those that go down, none in both.
        """
        self._num_votes += len(votes)
        while self._num_votes >= 1 << (len(self._planes) - 1):  # p planes hold -2^(p-1) .. 2^(p-1) - 1
            self._planes.append(self._planes[-1].copy())  # the sign, extended
        for first in range(0, len(votes), GROUP):
            group = votes[first : first + GROUP]
            for start in range(0, self._num_bytes, _ADD_BLOCK_BYTES):
                block = slice(start, min(start + _ADD_BLOCK_BYTES, self._num_bytes))
                _add_block(
                    [plane[block] for plane in self._planes],
                    [(raised[block], lowered[block]) for raised, lowered in group],
                    self._scratch[:, : block.stop - start],
                )

    def integers(self, start: int, stop: int) -> NDArray[np.int32]:
        """Returns the counters of bits start .. stop - 1 as int32 [stop - start].

        Args:
            start: First bit, a multiple of 8.
            stop: End, at most 8 * num_bytes.
        """
        integers = np.empty(stop - start, np.int32)
        # The narrowest type that holds them is the fastest to work with.
        dtype = np.int8 if len(self._planes) <= 8 else np.int16 if len(self._planes) <= 16 else np.int32
        for first in range(start, stop, 8 * _UNPACK_BLOCK_BYTES):
            count = min(8 * _UNPACK_BLOCK_BYTES, stop - first)
            part = slice(first // 8, first // 8 + _UNPACK_BLOCK_BYTES)
            bits = (
                np.unpackbits(plane[part], count=count, bitorder="little").view(np.int8)
                for plane in reversed(self._planes)
            )
            counters = np.negative(next(bits), dtype=dtype)  # all ones where the sign is
            for bit in bits:
                counters += counters
                counters |= bit
            integers[first - start : first - start + count] = counters
        return integers


def _add_block(planes: list[Packed], pairs: list[tuple[Packed, Packed]], scratch: Packed) -> None:
    """Adds votes to planes: at each plane two votes become one carry, a vote that counts twice as much."""
    spare, flips, signs = scratch[0], scratch[1 : 1 + GROUP], scratch[1 + GROUP :]
    # Lazily: what was just read from main memory is still in the cache when the first plane needs it.
    votes: Iterable[_Vote] = (
        (np.bitwise_or(raised, lowered, out=flip), lowered)
        for flip, (raised, lowered) in zip(flips, pairs, strict=False)
    )
    for plane in planes:
        each = iter(votes)
        # Row i of signs belonged to pair i // 2 of this plane: by the time that pair i writes there, it is done with.
        votes = [
            _add_one(plane, first, spare) if second is None else _add_two(plane, first, second, sign, spare)
            for sign, (first, second) in zip(signs, zip_longest(each, each), strict=False)
        ]
    # A carry out of the last plane only continues the sign.


def _add_two(plane: Packed, first: _Vote, second: _Vote, signs: Packed, spare: Packed) -> _Vote:
    """Adds two votes to a plane with eight operations and returns their carry.

    A plane's bit b and a vote give the bit `b' = b ^ flip` and a carry where `flip & (sign ^ b)`: upwards if b' is 0,
    downwards if it is 1. Of the carries of two votes, one after the other, at most one is left, for if both are
    there, b' has made one of them go up and the other go down. So the common carry flips where one of the two does;
    its sign is b' if it is the first vote's, and the opposite of b' if it is the second's.

    Args:
        plane: Changed in place.
        first: Its flips are overwritten with those of the carry.
        second: Is kept.
        signs: Where the signs of the carry go; may be those of `first`.
        spare: Scratch.
    """
    flips1, signs1 = first
    flips2, signs2 = second
    carry1 = np.bitwise_xor(signs1, plane, out=spare)
    carry1 &= flips1
    plane ^= flips1
    carry2 = np.bitwise_xor(signs2, plane, out=flips1)
    carry2 &= flips2
    np.bitwise_xor(plane, carry2, out=signs)
    plane ^= flips2
    carry2 ^= carry1
    return carry2, signs


def _add_one(plane: Packed, vote: _Vote, spare: Packed) -> _Vote:
    """Adds a vote to a plane and returns the carry, which has the vote's sign and takes the place of its flips."""
    flips, signs = vote
    carry = np.bitwise_xor(signs, plane, out=spare)
    plane ^= flips
    flips &= carry
    return flips, signs
