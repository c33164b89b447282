"""The loops of rANS and of counting, compiled by numba: the same results as without it, some ten times faster.

Needs the extra `fast`. The loops do not check bounds; the functions around them do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from pemn.codec.model import BITS, SCALE
from pemn.errors import LocalError


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
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
    _check(decisions, contexts, table.size)
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
    _check(out, contexts, table.size)
    return int(_decode(contexts, table, states, words, out))


def count(decisions: NDArray[np.bool_], contexts: NDArray[np.uint16], counts: NDArray[np.int64]) -> None:
    """Adds decisions to counts: int64 [2, contexts]."""
    _check(decisions, contexts, counts.shape[1])
    _count(decisions, contexts, counts)


def _check(decisions: NDArray[np.bool_], contexts: NDArray[np.uint16], num_contexts: int) -> None:
    if decisions.dtype != np.bool_ or contexts.dtype != np.uint16 or decisions.size != contexts.size:
        got = f"{decisions.dtype} [{decisions.size}], {contexts.dtype} [{contexts.size}]"
        raise LocalError("decisions and contexts", got=got, wanted="bool [m], uint16 [m]")
    if int(contexts.max(initial=0)) >= num_contexts:
        raise LocalError("context", got=int(contexts.max()), wanted=f"< {num_contexts}")


# All lanes of a step take one decision. What can be done for each lane by itself has its own loop without branches,
# which the compiler turns into vector instructions. Indices are unsigned: with signed ones numba would look at every
# access whether they count from the end.


@_compile
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


@_compile
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


@_compile
def _count(decisions, contexts, counts):  # type: ignore[no-untyped-def]
    for i in range(decisions.size):
        counts[np.uint64(decisions[i]), np.uint64(contexts[i])] += 1
