"""A counter for each bit of packed masks, stored bit by bit: where votes are counted.

Plane `j` holds bit `j` of every counter, packed as masks are. One bitwise operation on two byte arrays is then a step
of eight counters a byte, and memory grows with the logarithm of the number of masks. This is a bit-sliced
("vertical") counter, fed by a tree of carry-save adders as in Harley and Seal's population count.

Source: H. S. Warren, Hacker's Delight, 2nd edition, Section 5-1 (Harley and Seal).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pemn.errors import LocalError

Packed: TypeAlias = NDArray[np.uint8]

GROUP = 16
"""Masks that are added at once: more hardly cost less each, and whoever gathers them has to keep them."""

# Bytes of a plane that are worked on at a time. More, and what a step touches leaves the core's own cache; fewer, and
# numpy's fixed cost a call shows: of 16, 32, 64 and 128 KiB the last was the fastest to add.
_ADD_BLOCK_BYTES = 128 << 10
_UNPACK_BLOCK_BYTES = 16 << 10


class BitPlanes:
    """A counter for each bit of a packed array, at first 0.

    Args:
        num_bytes: Length of the packed arrays.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._num_masks = 0
        self._planes: list[Packed] = []
        self._scratch = np.empty((1 + GROUP // 2, min(num_bytes, _ADD_BLOCK_BYTES)), np.uint8)

    def add(self, num_masks: int, masks: Callable[[int, int], Sequence[Packed]]) -> None:
        """Counts the ones of packed masks.

        Args:
            num_masks: How many, at most GROUP; it is fastest with so many.
            masks: Returns of each the bytes start .. stop - 1, uint8 [stop - start]; is asked for one part after the
                other, so no mask need ever be whole.

        Raises:
            LocalError: If they are more.
        """
        if num_masks > GROUP:
            raise LocalError("masks at once", got=num_masks, wanted=f"at most {GROUP}")
        self._num_masks += num_masks
        while self._num_masks >= 1 << len(self._planes):
            self._planes.append(np.zeros(self._num_bytes, np.uint8))
        for start in range(0, self._num_bytes, _ADD_BLOCK_BYTES):
            stop = min(start + _ADD_BLOCK_BYTES, self._num_bytes)
            planes = [plane[start:stop] for plane in self._planes]
            _add_block(planes, masks(start, stop), self._scratch[:, : stop - start])

    def integers(self, start: int, stop: int) -> NDArray[np.int32]:
        """Returns the counters of bits start .. stop - 1 as int32 [stop - start].

        Args:
            start: First bit, a multiple of 8.
            stop: End, at most 8 * num_bytes.
        """
        integers = np.empty(stop - start, np.int32)
        # The narrowest type that holds them is the fastest to work with.
        num_bits = len(self._planes)
        dtype = np.dtype(np.uint8 if num_bits <= 8 else np.uint16 if num_bits <= 16 else np.uint32)
        for first in range(start, stop, 8 * _UNPACK_BLOCK_BYTES):
            count = min(8 * _UNPACK_BLOCK_BYTES, stop - first)
            part = slice(first // 8, first // 8 + _UNPACK_BLOCK_BYTES)
            counters: NDArray[np.integer[Any]] = np.zeros(count, dtype)
            for plane in reversed(self._planes):
                counters += counters
                counters |= np.unpackbits(plane[part], count=count, bitorder="little")
            integers[first - start : first - start + count] = counters
        return integers


def _add_block(planes: list[Packed], masks: Sequence[Packed] | Packed, scratch: Packed) -> None:
    """Adds masks to planes: at each plane two masks become one carry, a mask that counts twice as much."""
    spare, carries = scratch[0], scratch[1:]
    for plane in planes:
        # By the time that pair i writes its carry to row i, the two masks that this plane had there are used up.
        pairs = list(zip(masks[0::2], masks[1::2], carries, strict=False))
        for first, second, carry in pairs:
            _add_two(plane, first, second, carry, spare)
        if len(masks) % 2:
            np.bitwise_and(plane, masks[-1], out=spare)
            plane ^= masks[-1]
            np.copyto(carries[len(pairs)], spare)
        masks = carries[: -(-len(masks) // 2)]


def _add_two(plane: Packed, first: Packed, second: Packed, carry: Packed, spare: Packed) -> None:
    """Adds two masks to a plane: a full adder of five operations.

    Args:
        plane: Changed in place.
        first: Is kept, if it is not `carry` too.
        second: Is kept.
        carry: Where two of the three are 1.
        spare: Scratch.
    """
    np.bitwise_xor(plane, first, out=spare)
    np.bitwise_and(plane, first, out=carry)
    np.bitwise_xor(spare, second, out=plane)
    spare &= second
    carry |= spare
