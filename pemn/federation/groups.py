"""Layers that are coded as alike: at most eight groups of neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pemn.codec import blocks

MAX_GROUPS = 8

_ALIGNMENT = 64


@dataclass(frozen=True)
class LayerGroups:
    """Which group each weight belongs to.

    Attributes:
        ends: Index after the last weight of each group, ascending.
    """

    ends: tuple[int, ...]

    @classmethod
    def of(cls, sizes: tuple[int, ...]) -> LayerGroups:
        """Puts layer `l` of L in group `l * G // L`, where G is L, but at most MAX_GROUPS."""
        count = min(len(sizes), MAX_GROUPS)
        weights = [0] * count
        for layer, size in enumerate(sizes):
            weights[layer * count // len(sizes)] += size
        return cls(tuple(np.cumsum(weights).tolist()))

    @property
    def restarts(self) -> tuple[int, ...]:
        """Where blocks begin anew: at the first multiple of 64 in each group but the first, or after it."""
        return tuple(-(-end // _ALIGNMENT) * _ALIGNMENT for end in self.ends[:-1])

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yields the blocks in which the weights are coded."""
        return blocks(self.ends[-1], self.restarts)

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.ends)

    def ids(self, start: int, stop: int) -> NDArray[np.uint16]:
        """Returns the group of the weights start .. stop-1: uint16 [stop - start]."""
        out = np.empty(stop - start, np.uint16)
        for group, (begin, end) in enumerate(zip((0, *self.ends), self.ends, strict=False)):
            if begin < stop and start < end:
                out[max(begin - start, 0) : end - start] = group
        return out
