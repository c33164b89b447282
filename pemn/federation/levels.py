"""From the integers k of the public state to probabilities q, and back to scores' starting points.

A probability is an integer in 1/65536. `q = clip(q_start + k * step, LOWEST, HIGHEST)`, where q_start is drawn from
the seed by way of a small table that travels in the spec, so no two machines compute it differently.

Source: docs/wire.md, "Public state".
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pemn.generator import Purpose, child, uint16s
from pemn.wire.spec import MaskProtocol

ONE = 65536
"""Probability 1."""

HALF = 32768
LOWEST, HIGHEST = 66, 65470
"""About 0.001 and 0.999: no weight is ever settled for good."""

MAX_STEPS = 127
"""Bound of |k|: an int8."""

# Where sin(pi/2 * j/16)^2 lies in 1/65536: 16 buckets in which a sampled bit is about equally uncertain by one
# standard deviation, written out so that no machine computes a sine.
_ARCSINE_EDGES = np.array(
    [630, 2495, 5523, 9598, 14564, 20229, 26376, 32768, 39161, 45308, 50973, 55939, 60014, 63042, 64907],
    np.uint16,
)
NUM_ARCSINE_BUCKETS = 16


def arcsine_bucket(q: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Returns the bucket, 0 .. 15, of each probability in 1/65536."""
    return np.searchsorted(_ARCSINE_EDGES, q, side="right").astype(np.uint8)


def normal_start_levels(spread: float, count: int = 2048) -> tuple[int, ...]:
    """Returns the lower half of a table of sigmoid(spread * normal), for `MaskProtocol.start_levels`.

    Args:
        spread: Standard deviation of the starting scores, >= 0; 0 gives the empty table, all weights at 1/2.
        count: Entries of the half table, a power of two.
    """
    if spread == 0:
        return ()
    normal = statistics.NormalDist(0.0, spread)
    levels = []
    for i in range(count):
        score = normal.inv_cdf((i + 0.5) / (2 * count))
        probability = ONE / (1.0 + np.exp(-score))
        levels.append(min(max(round(probability), LOWEST), HALF))
    return tuple(levels)


@dataclass(frozen=True)
class Levels:
    """The probabilities of one network.

    Attributes:
        protocol: Step and table of start levels.
        seed: The run's seed.
        num_params: n.
    """

    protocol: MaskProtocol
    seed: int
    num_params: int

    @cached_property
    def start(self) -> NDArray[np.uint16]:
        """q_start: uint16 [n]."""
        lower = np.array(self.protocol.start_levels, np.uint16)
        if not lower.size:
            return np.full(self.num_params, HALF, np.uint16)
        table = np.concatenate([lower, (ONE - lower[::-1].astype(np.int64)).astype(np.uint16)])
        bits = table.size.bit_length() - 1
        draws = uint16s(child(self.seed, Purpose.START_LEVELS), 0, self.num_params)
        start: NDArray[np.uint16] = table[draws >> np.uint16(16 - bits)]
        return start

    def at(self, k: NDArray[np.int8]) -> NDArray[np.uint16]:
        """Returns q of a public state: uint16 [n], each LOWEST .. HIGHEST."""
        q: NDArray[np.int32] = k.astype(np.int32) * self.protocol.step + self.start
        return q.clip(LOWEST, HIGHEST).astype(np.uint16)


def dither(seed: int, round_: int, slot: int, num_params: int) -> NDArray[np.uint16]:
    """Returns u, by which a client and the server draw the same mask from the same probabilities.

    Returns:
        uint16 [num_params]; bit i of a mask is set where u[i] < probability.
    """
    return uint16s(child(seed, Purpose.DITHER, round_, slot), 0, num_params)
