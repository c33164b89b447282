"""How likely each decision is: a table of counts that both ends keep while they go.

A context is a number in mixed radix, the most telling digit first. Its probability is what was counted in it, and
until there is enough of that, what was counted in the coarser context without its last digit, and so on down to no
digits at all. So a rare context borrows from its kin, no table is ever sent, and a new context costs a few bits.

Source: docs/wire.md, "Probabilities". The borrowing is the Dirichlet prior of MacKay and Peto, Natural Language
Engineering 1 (1995), applied to binary contexts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pemn.codec.fast import kernels
from pemn.codec.log2 import ONE, log2
from pemn.errors import LocalError

BITS = 15
"""A frequency is in 1/32768."""

SCALE = 1 << BITS

# How many decisions the estimate of the next coarser context is worth, by the number of digits (further on as the
# last): few for the first digit, which tells most.
_BORROWED = (2, 2, 16)

_FIRST_BLOCK, _LAST_BLOCK = 64, 32_768
_DECISIONS_AT_ONCE = 8192
_MAX_CONTEXTS = 1 << 16  # each is a uint16

# Cost in 1/65536 bits of a decision with this frequency in 1/32768; entry 0 is never used.
_COSTS = BITS * ONE - log2(np.maximum(np.arange(SCALE + 1, dtype=np.int64), 1))


def blocks(num_weights: int, restarts: Sequence[int] = ()) -> Iterator[tuple[int, int]]:
    """Yields where blocks of weights begin and end.

    The first one has 64 weights and each has twice as many as the one before, up to 32,768: what is learnt early
    counts most, and all that is known of a block stays within a mebibyte.

    Args:
        num_weights: n.
        restarts: Ascending, where a block of 64 begins again, because what comes is of another kind.
    """
    start = 0
    for end in (*restarts, num_weights):
        size = _FIRST_BLOCK
        while start < min(end, num_weights):
            stop = min(start + size, end, num_weights)
            yield start, stop
            start, size = stop, min(2 * size, _LAST_BLOCK)


class ContextModel:
    """Counts of a sequence of decisions so far.

    Args:
        shape: How many values each digit of a context has, the first digit the most telling. A context is
            `(a * shape[1] + b) * shape[2] + c ...`; their number is at most 65,536.

    Raises:
        LocalError: If there are none, or more contexts.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        if not 1 <= math.prod(shape) <= _MAX_CONTEXTS:
            raise LocalError("contexts", got=shape, wanted=f"1 .. {_MAX_CONTEXTS}")
        self._shape = shape
        self._counts = np.zeros((2, math.prod(shape)), np.int64)  # zeros, ones
        self._fresh = np.zeros_like(self._counts)
        self._cost = 0
        self.table = self._estimate()

    @property
    def cost(self) -> int:
        """Length of an ideal code of all decisions of finished blocks, in bits, rounded down."""
        return self._cost // ONE

    def check(self, contexts: NDArray[np.uint16]) -> None:
        """Checks what a caller gives, before anything else is done with it: compiled loops do not look.

        Raises:
            LocalError: If a context is none of the shape's.
        """
        if contexts.dtype != np.uint16 or int(contexts.max(initial=0)) >= self.table.size:
            got = f"{contexts.dtype}, up to {contexts.max(initial=0)}"
            raise LocalError("contexts", got=got, wanted=f"uint16, 0 .. {self.table.size - 1}")

    def count(self, decisions: NDArray[np.bool_], contexts: NDArray[np.uint16]) -> None:
        """Notes decisions of the block that is being coded; `check` has seen their contexts."""
        fast = kernels(decisions.size)
        if fast is not None:
            fast.count(decisions, contexts, self._fresh)
        else:
            for part in range(0, decisions.size, _DECISIONS_AT_ONCE):  # bincount makes eight bytes of each
                here = slice(part, part + _DECISIONS_AT_ONCE)
                keys = contexts[here] + decisions[here] * np.uint32(self.table.size)
                self._fresh += np.bincount(keys, minlength=self._fresh.size).reshape(2, -1)

    def adapt(self) -> None:
        """Ends a block: its decisions now count in the table."""
        fast = kernels()
        self._cost += int((fast.cost if fast else _cost)(self._fresh, self.table, _COSTS))
        self._counts += self._fresh
        self._fresh[:] = 0
        self.table = self._estimate()

    def _estimate(self) -> NDArray[np.uint16]:
        """Returns the frequency of a 1 in each context, uint16 [contexts], 1 .. 32767, in 1/32768."""
        fast = kernels()
        coarsen, refine = (fast.coarsen, fast.refine) if fast else (_coarsen, _refine)
        levels = [self._counts]  # from the contexts with all digits to the one with none
        for values in reversed(self._shape):
            levels.append(coarsen(levels[-1], values))
        estimate = np.full(1, SCALE // 2, np.int64)
        for num_digits, counts in enumerate(reversed(levels)):
            estimate = refine(estimate, counts, _BORROWED[min(num_digits, 2)])
        return estimate.astype(np.uint16).clip(1, SCALE - 1)


def _cost(counts: NDArray[np.int64], table: NDArray[np.uint16], costs: NDArray[np.int64]) -> int:
    """Returns what decisions cost with the frequencies of a table, in 1/65536 bits."""
    zeros, ones = counts
    return int(zeros @ costs.take(SCALE - table) + ones @ costs.take(table))


def _coarsen(counts: NDArray[np.int64], values: int) -> NDArray[np.int64]:
    """Returns the counts of contexts without their last digit, which has so many values."""
    coarser: NDArray[np.int64] = counts.reshape(2, -1, values).sum(axis=2)
    return coarser


def _refine(coarser: NDArray[np.int64], counts: NDArray[np.int64], borrowed: int) -> NDArray[np.int64]:
    """Returns estimates with one more digit: of the counts, and so many decisions as the coarser estimate has it."""
    zeros, ones = counts
    total = zeros + ones + borrowed
    lent = np.repeat(coarser * borrowed, total.size // coarser.size)
    estimate: NDArray[np.int64] = (ones * SCALE + lent + (total >> 1)) // total
    return estimate
