"""From the integers k of the public state to probabilities q.

A probability is an integer in 1/65536. `q = clip(q_start + k * step, LOWEST, HIGHEST)`, where q_start is drawn from
the seed by way of a small table that travels in the spec, so no two machines compute it differently.

Source: docs/wire.md, "Public state".
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from pemn.federation.fast import kernels
from pemn.federation.groups import LayerGroups
from pemn.generator import Purpose, child, uint16s
from pemn.mask import Mask
from pemn.wire.protocols import MaskProtocol
from pemn.wire.spec import Spec

ONE = 65536
"""Probability 1."""

HALF = 32768
LOWEST, HIGHEST = 66, 65470
"""About 0.001 and 0.999: no weight is ever settled for good."""

MAX_STEPS = 127
"""Bound of |k|: an int8."""

_BLOCK_WEIGHTS = 1 << 16  # what is computed on the way stays in the cache


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


@lru_cache(maxsize=4)  # the clients of a simulation share one: it is 128 KiB
def start_table(lower: tuple[int, ...]) -> NDArray[np.uint16]:
    """Returns the start level of every 16-bit draw, ascending: uint16 [65536], read-only.

    Args:
        lower: Lower half of the levels that there are, a power of two; if empty, there is one, 1/2.
    """
    half = np.array(lower, np.int64)
    levels = np.concatenate([half, ONE - half[::-1]]) if lower else np.array([HALF])
    table = np.repeat(levels.astype(np.uint16), ONE // levels.size)
    table.flags.writeable = False
    return table


def start_draws(seed: int, start: int, stop: int) -> NDArray[np.uint16]:
    """Returns the draws by which the weights start .. stop-1 get their start level: uint16 [stop - start]."""
    return _uint16s(_key(seed, Purpose.START_LEVELS), start, stop - start)


@dataclass(frozen=True)
class Levels:
    """The probabilities of one network.

    Attributes:
        protocol: Step and table of start levels.
        seed: The run's seed.
        sizes: Number of bits of each layer's mask: of weights, or of ties of them.
    """

    protocol: MaskProtocol
    seed: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, spec: Spec) -> Levels:
        """Returns the probabilities of a run's network."""
        return cls(spec.mask, spec.model.seed, spec.model.bit_sizes)

    @cached_property
    def num_params(self) -> int:
        """Number of bits of the mask, n."""
        return sum(self.sizes)

    @cached_property
    def groups(self) -> LayerGroups:
        """Which layers are coded as alike."""
        return LayerGroups.of(self.sizes)

    def at(self, k: NDArray[np.int8], first: int = 0) -> NDArray[np.uint16]:
        """Returns q of a public state or of a slice of it.

        Args:
            k: int8 [m], of the weights `first` .. `first + m - 1`.
            first: Where the slice begins.

        Returns:
            uint16 [m], each LOWEST .. HIGHEST.
        """
        q, fast = np.empty(k.size, np.uint16), kernels()
        table = start_table(self.protocol.start_levels)
        take, add_steps = (fast.take, fast.add_steps) if fast else (np.take, _add_steps)
        for begin in range(0, k.size, _BLOCK_WEIGHTS):
            part, out = k[begin : begin + _BLOCK_WEIGHTS], q[begin : begin + _BLOCK_WEIGHTS]
            draws = start_draws(self.seed, first + begin, first + begin + part.size)
            add_steps(take(table, draws), part, self.protocol.step, out)
        return q

    def mask(self, k: NDArray[np.int8]) -> Mask:
        """Returns the mask that everybody with a public state shares: the weights that are rather kept than not."""
        return Mask.from_bits(self.at(k) > HALF, self.sizes)


def _add_steps(starts: NDArray[np.uint16], k: NDArray[np.int8], step: int, out: NDArray[np.uint16]) -> None:
    """Puts q into `out`, for the start levels of some weights and their k."""
    level = k.astype(np.int32)
    level *= step
    level += starts
    out[:] = level.clip(LOWEST, HIGHEST, out=level)


def dither(seed: int, round_: int, slot: int, start: int, stop: int) -> NDArray[np.uint16]:
    """Returns u, by which a client and the server draw the same mask from the same probabilities.

    Returns:
        uint16 [stop - start], for the weights start .. stop-1; a mask has a 1 where u < probability.
    """
    return _uint16s(_key(seed, Purpose.DITHER, round_, slot), start, stop - start)


_key = lru_cache(child)  # asked for with every block


def _uint16s(key: int, start: int, count: int) -> NDArray[np.uint16]:
    fast = kernels()
    out: NDArray[np.uint16] = (fast.uint16s if fast else uint16s)(key, start, count)
    return out
