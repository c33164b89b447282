"""The loops of rANS and of probabilities, compiled by numba: the same results as without it, faster (docs/results).

Needs the extra `fast`. The loops do not check bounds: `ContextModel.check` has seen all contexts before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from pemn.codec.model import BITS, SCALE


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function at its first call, for arrays as they are then."""

    def compile_(cache: bool) -> Callable[..., Any]:
        return nb.njit(cache=cache, nogil=True, boundscheck=False, error_model="numpy")(function)

    try:
        return compile_(cache=True)
    except RuntimeError:  # no folder that may be written: then every process compiles anew
        return compile_(cache=False)


def encode(
    decisions: NDArray[np.bool_],
    contexts: NDArray[np.uint16],
    table: NDArray[np.uint16],
    states: NDArray[np.uint32],
) -> NDArray[np.uint16]:
    """Codes decisions; changes the states and returns the words (`pemn.codec.rans.Encoder.put`)."""
    words = np.empty(decisions.size, np.uint16)  # a decision pushes one word at most
    first = _encode(decisions, contexts, table, states, words)
    return words[first:].copy()


def decode(
    contexts: NDArray[np.uint16],
    table: NDArray[np.uint16],
    states: NDArray[np.uint32],
    words: NDArray[np.uint32],
    out: NDArray[np.bool_],
) -> int:
    """Reads decisions into `out`; returns how many words it took, or -1 if there are too few."""
    return int(_decode(contexts, table, states, words, out))


# With few contexts, neighbours often count in the same place, and the second has to wait for the first: so each of four
# has its own table. With many, clearing the tables would take longer than the waiting.
_APART, _FEW_CONTEXTS = 4, 64


@compiled
def count(decisions, contexts, counts):  # type: ignore[no-untyped-def]
    """Adds decisions to counts: int64 [2, contexts]."""
    first = 0
    if counts.shape[1] <= _FEW_CONTEXTS:
        apart = np.zeros((_APART, *counts.shape), np.int64)
        first = decisions.size // _APART * _APART
        for begin in range(0, first, _APART):
            for table in range(_APART):
                i = np.uint64(begin + table)
                apart[np.uint64(table), np.uint64(decisions[i]), np.uint64(contexts[i])] += 1
        counts += apart.sum(axis=0)
    for begin in range(first, decisions.size):
        i = np.uint64(begin)
        counts[np.uint64(decisions[i]), np.uint64(contexts[i])] += 1


# All lanes of a step take one decision. What can be done for each lane by itself has its own loop without branches,
# which the compiler turns into vector instructions. Indices are unsigned: with signed ones numba would look at every
# access whether they count from the end.


@compiled
def _encode(decisions, contexts, table, states, words):  # type: ignore[no-untyped-def]
    lanes = states.size
    frequencies, starts = np.empty(lanes, np.uint32), np.empty(lanes, np.uint32)
    first = np.uint64(words.size)
    for begin in range((decisions.size - 1) // lanes * lanes, -1, -lanes):
        step, step_contexts = decisions[begin : begin + lanes], contexts[begin : begin + lanes]
        for i in range(step.size):
            lane = np.uint64(i)
            frequencies[lane] = table[np.uint64(step_contexts[lane])]
        for i in range(step.size):
            lane = np.uint64(i)
            ones = frequencies[lane]
            frequencies[lane] = ones if step[lane] else np.uint32(SCALE) - ones
            starts[lane] = np.uint32(0) if step[lane] else ones
        for back in range(step.size):
            lane = np.uint64(step.size - 1 - back)
            x = states[lane]
            if x >= np.uint32(frequencies[lane] << np.uint32(32 - BITS)):
                first -= np.uint64(1)
                words[first] = np.uint16(x & np.uint32(0xFFFF))
                states[lane] = np.uint32(x >> np.uint32(16))
        for i in range(step.size):
            lane = np.uint64(i)
            x, f = states[lane], frequencies[lane]
            # Processors divide many floats at once, but no integers. The result is exact: a quotient below 2^17 that
            # is no integer is at least 1/32767 away from one, much more than the rounding.
            quotient = np.uint32(np.float64(x) / np.float64(f))
            states[lane] = np.uint32(x + np.uint32(quotient * np.uint32(np.uint32(SCALE) - f)) + starts[lane])
    return first


@compiled
def _decode(contexts, table, states, words, out):  # type: ignore[no-untyped-def]
    lanes = states.size
    frequencies = np.empty(lanes, np.uint32)
    cursor, end = np.uint64(0), np.uint64(words.size)
    for begin in range(0, out.size, lanes):
        step, step_contexts = out[begin : begin + lanes], contexts[begin : begin + lanes]
        for i in range(step.size):
            lane = np.uint64(i)
            frequencies[lane] = table[np.uint64(step_contexts[lane])]
        for i in range(step.size):
            lane = np.uint64(i)
            x, f = states[lane], frequencies[lane]
            slot = np.uint32(x & np.uint32(SCALE - 1))
            low = np.uint32(f * np.uint32(x >> np.uint32(BITS)))
            one = slot < f
            step[lane] = one
            states[lane] = np.uint32(low + slot) if one else np.uint32(np.uint32(x - low) - f)
        for i in range(step.size):
            lane = np.uint64(i)
            if states[lane] < np.uint32(1 << 16):
                if cursor == end:
                    return -1
                states[lane] = np.uint32(np.uint32(states[lane] << np.uint32(16)) | words[cursor])
                cursor += np.uint64(1)
    return np.int64(cursor)


@compiled
def cost(counts, table, costs):  # type: ignore[no-untyped-def]
    """Does what `pemn.codec.model._cost` does."""
    total = 0
    for i in range(table.size):
        context, ones = np.uint64(i), np.uint64(table[np.uint64(i)])
        total += counts[0, context] * costs[np.uint64(SCALE) - ones] + counts[1, context] * costs[ones]
    return total


@compiled
def coarsen(counts, values):  # type: ignore[no-untyped-def]
    """Does what `pemn.codec.model._coarsen` does."""
    out = np.zeros((2, counts.shape[1] // values), np.int64)
    for bit in range(2):
        for i in range(out.shape[1]):
            for j in range(i * values, (i + 1) * values):
                out[np.uint64(bit), np.uint64(i)] += counts[np.uint64(bit), np.uint64(j)]
    return out


@compiled
def refine(coarser, counts, borrowed):  # type: ignore[no-untyped-def]
    """Does what `pemn.codec.model._refine` does."""
    out = np.empty(counts.shape[1], np.int64)
    values = out.size // coarser.size
    for i in range(coarser.size):
        lent = coarser[np.uint64(i)] * borrowed
        for j in range(i * values, (i + 1) * values):
            context = np.uint64(j)
            zeros, ones = counts[0, context], counts[1, context]
            total = zeros + ones + borrowed
            # Exact, as the quotient in `_encode`: one that is no integer is, after less than 2^33 decisions, more than
            # 2^-34 away from one, and rounding a number up to 2^15 changes it by 2^-38 at most.
            out[context] = np.int64(np.float64(ones * SCALE + lent + (total >> 1)) / np.float64(total))
    return out
