"""What of a round's votes is left out, so that a few clients that vote against the others decide less.

It does not depend on the order of the votes. What it is worth is measured, and nothing else is promised of it
(docs/security.md, "Votes against the others").
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pemn.codec.bits import unpack
from pemn.federation.flips import Flips, flips_size, masks
from pemn.federation.planes import GROUP, BitPlanes
from pemn.federation.tally import Tally

_BLOCK_WEIGHTS = 1 << 15  # times the votes of a round, a byte each
_TRIMMED = 5
"""On either side of a weight every fifth vote is left out."""

_OUTLIER = 3.5
"""Median absolute deviations, scaled to standard deviations; Iglewicz and Hoaglin, 1993."""

_TO_SIGMA = 1.4826


class Defence(StrEnum):
    """What is left out."""

    NONE = "none"
    """Nothing."""

    TRIM = "trim"
    """Of each weight's votes the greatest and the least, a fifth of them on either side (a trimmed mean; Yin et al.,
    Byzantine-Robust Distributed Learning, ICML 2018)."""

    SCORE = "score"
    """Whole votes: those that agree with the others far less than is usual in the round, or are of another length."""


class TrimmedTally(Tally):
    """Adds up the votes of a round without the greatest and the least of each weight.

    `num_votes` and the sums are those of what is left. Memory: twice `Tally`'s.
    """

    def __init__(self, num_params: int) -> None:
        super().__init__(num_params)
        num_bytes = -(-num_params // 8)
        self._up, self._down = BitPlanes(num_bytes), BitPlanes(num_bytes)

    @property
    def num_votes(self) -> int:
        """Votes of each weight that are left."""
        return self._num_votes - 2 * (self._num_votes // _TRIMMED)

    def counters(self, start: int, stop: int) -> NDArray[np.int32]:
        """See `Tally`; of what is left."""
        super().counters(start, stop)
        trimmed, left = self._num_votes // _TRIMMED, self.num_votes
        up, down = (
            (planes.integers(start, stop) - np.int32(trimmed)).clip(0, left)
            for planes in (self._up, self._down)
        )
        sums: NDArray[np.int32] = up - down + np.int32(left)
        return sums

    def _count(self) -> None:
        votes = self._waiting
        super()._count()
        for first in range(0, len(votes), GROUP // 2):
            group = votes[first : first + GROUP // 2]

            def ups(start: int, stop: int, group: Sequence[Flips] = group) -> list[NDArray[np.uint8]]:
                own, closed = self._pairs(group, start, stop)
                return list(own & closed)

            def downs(start: int, stop: int, group: Sequence[Flips] = group) -> list[NDArray[np.uint8]]:
                own, closed = self._pairs(group, start, stop)
                return list(~(own | closed))

            self._up.add(len(group), ups)
            self._down.add(len(group), downs)

    def _pairs(
        self, votes: Sequence[Flips], start: int, stop: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        pairs = masks(votes, 8 * start, min(8 * stop, self.num_params)).reshape(len(votes), 2, -1)
        return pairs[:, 0], pairs[:, 1]


def outliers(votes: Sequence[Flips]) -> list[int]:
    """Returns which votes of a round look unlike the others: positions in `votes`, ascending, never half of them.

    Of each vote two figures count: how much it agrees with the sum of the others, by flip, and how long its code is. An
    outlier's distance from their median is more than 3.5 times what it usually is; of the agreement only what is less
    than usual counts. It takes four votes to say what is usual.

    Args:
        votes: Of one network.
    """
    if len(votes) < 4:
        return []
    agreement = _agreement(votes)
    length = np.array([flips_size(vote) for vote in votes], np.float64)
    suspicion = np.maximum(
        -_distance(agreement, 0.01), np.abs(_distance(length, 0.01 * float(np.median(length))))
    )
    found = [int(i) for i in np.argsort(-suspicion, kind="stable") if suspicion[i] > _OUTLIER]
    return sorted(found[: (len(votes) - 1) // 2])


def _agreement(votes: Sequence[Flips]) -> NDArray[np.float64]:
    """Returns for each vote the mean over its flips of what the others say there, -1 .. 1."""
    num_params = votes[0].draw.levels.num_params
    with_others, num_flips = np.zeros(len(votes), np.int64), np.zeros(len(votes), np.int64)
    for start in range(0, num_params, _BLOCK_WEIGHTS):
        stop = min(start + _BLOCK_WEIGHTS, num_params)
        bits = np.stack([unpack(mask, 0, stop - start) for mask in masks(votes, start, stop)])
        says = bits.reshape(len(votes), 2, -1).sum(1, dtype=np.int8) - np.int8(1)
        total = says.sum(0, dtype=np.int32)
        with_others += (says * (total - says)).sum(1, dtype=np.int64)
        num_flips += np.count_nonzero(says, axis=1)
    return with_others / np.maximum(num_flips, 1) / (len(votes) - 1)


def _distance(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Returns how many deviations each value is from the median; a deviation is at least `least`."""
    away = values - np.median(values)
    return away / max(_TO_SIGMA * float(np.median(np.abs(away))), least)
