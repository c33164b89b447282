"""The loops over weights, compiled by numba: the same integers as without it, faster (docs/results/messages).

Needs the extra `fast`. A table is looked up in a loop of its own: among arithmetic that is done on many weights at
once, the compiler would gather from it with one instruction, which takes several times as long.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemn.codec.kernels import compiled
from pemn.federation.contexts import COARSE, DISTANCES, FINE, LEVELS
from pemn.federation.levels import HIGHEST, LOWEST
from pemn.generator import GAMMA, MIX_1, MIX_2


def uint16s(key: int, start: int, count: int) -> NDArray[np.uint16]:
    """Does what `pemn.generator.uint16s` does."""
    first, last = start // 4, -(-(start + count) // 4)
    words: NDArray[np.uint64] = _words(np.uint64(key), np.uint64(first), last - first)
    halves = words.astype("<u8", copy=False).view("<u2")
    return halves[start - 4 * first :][:count].astype(np.uint16, copy=False)


@compiled
def _words(key, start, count):  # type: ignore[no-untyped-def]
    """Does what `pemn.generator.words` does; key and start are uint64."""
    out = np.empty(count, np.uint64)
    for i in range(count):
        z = key + (start + np.uint64(i) + np.uint64(1)) * np.uint64(GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_2)
        out[np.uint64(i)] = z ^ (z >> np.uint64(31))
    return out


@compiled
def take(table, indices):  # type: ignore[no-untyped-def]
    """Returns `table[indices]`; the table has 65,536 entries, so that every uint16 is one of them."""
    out = np.empty(indices.size, table.dtype)
    for i in range(indices.size):
        out[np.uint64(i)] = table[np.uint64(indices[np.uint64(i)])]
    return out


@compiled
def add_steps(starts, k, step, out):  # type: ignore[no-untyped-def]
    """Does what `pemn.federation.levels._add_steps` does."""
    for i in range(k.size):
        level = np.int32(starts[np.uint64(i)]) + np.int32(k[np.uint64(i)]) * np.int32(step)
        out[np.uint64(i)] = min(max(level, np.int32(LOWEST)), np.int32(HIGHEST))


@compiled
def flip_contexts(odds_q, odds_u, ids, num_groups):  # type: ignore[no-untyped-def]
    """Does what `pemn.federation.contexts._flip_contexts` does."""
    out = np.empty(odds_q.size, np.uint16)
    for i in range(odds_q.size):
        odds = np.int32(odds_q[np.uint64(i)])
        distance = (np.int32(odds_u[np.uint64(i)]) - odds >> np.int32(FINE)) + np.int32(DISTANCES // 2)
        level = (odds >> np.int32(COARSE)) + np.int32(LEVELS // 2)
        distance = min(max(distance, np.int32(0)), np.int32(DISTANCES - 1))
        level = min(max(level, np.int32(0)), np.int32(LEVELS - 1))
        context = (distance * np.int32(LEVELS) + level) * np.int32(num_groups)
        out[np.uint64(i)] = context + np.int32(ids[np.uint64(i)])
    return out
