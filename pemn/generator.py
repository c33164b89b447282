"""A 64-bit seed -> the same random words everywhere, by integer arithmetic only.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) in counter mode: word `i` of a stream is a pure function of the
stream's key and `i`, so any slice can be made alone, in any order, on any device. A stream's key is itself a word
of another stream (`child`), so every purpose, round and client has a stream of its own.

Source: docs/wire.md, "Random words".
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""SplitMix64's constants."""

_MASK_64 = (1 << 64) - 1
_BLOCK_WORDS = 1 << 13  # three blocks of 64 KiB stay in the second-level cache


class Purpose(IntEnum):
    """What a run draws random words for; the first step from the run's seed to a stream."""

    WEIGHTS = 0
    START_LEVELS = 1
    DITHER = 2
    PARTITION = 3
    BATCHES = 4
    SPLIT = 5
    SCORES = 6
    PARTICIPANTS = 7


def word(key: int, index: int) -> int:
    """Returns word `index` of the stream `key`, as the definition says it.

    Args:
        key: Stream key, 0 .. 2^64-1.
        index: Position in the stream, 0 .. 2^64-1.

    Returns:
        An integer, 0 .. 2^64-1.
    """
    z = (key + (index + 1) * GAMMA) & _MASK_64
    z = ((z ^ (z >> 30)) * MIX_1) & _MASK_64
    z = ((z ^ (z >> 27)) * MIX_2) & _MASK_64
    return z ^ (z >> 31)


def child(seed: int, *path: int) -> int:
    """Returns the key of the stream at `path` below `seed`.

    Args:
        seed: The run's seed or any stream key, 0 .. 2^64-1.
        *path: For example `Purpose.DITHER, round, slot`; each 0 .. 2^64-1.

    Returns:
        A stream key, 0 .. 2^64-1. Different paths give independent streams.
    """
    key = seed & _MASK_64
    for step in path:
        key = word(key, step)
    return key


def words(key: int, start: int, count: int) -> NDArray[np.uint64]:
    """Returns `count` words of the stream `key` from position `start` on.

    Returns:
        uint64 [count]; equal to `[word(key, start + i) for i in range(count)]`.
    """
    out = np.empty(count, np.uint64)
    block = min(_BLOCK_WORDS, count)
    steps = np.arange(1, block + 1, dtype=np.uint64) * np.uint64(GAMMA)
    scratch = np.empty(block, np.uint64)
    for begin in range(0, count, _BLOCK_WORDS):
        z = out[begin : begin + _BLOCK_WORDS]
        t = scratch[: z.size]
        offset = (key + (start + begin) * GAMMA) & _MASK_64
        np.add(steps[: z.size], np.uint64(offset), out=z)
        for shift, factor in ((30, MIX_1), (27, MIX_2)):
            np.right_shift(z, np.uint64(shift), out=t)
            z ^= t
            z *= np.uint64(factor)
        np.right_shift(z, np.uint64(31), out=t)
        z ^= t
    return out


def uint16s(key: int, start: int, count: int) -> NDArray[np.uint16]:
    """Returns 16-bit uniform integers: four a word, lowest bits first.

    Returns:
        uint16 [count], each 0 .. 65535.
    """
    first, last = start // 4, -(-(start + count) // 4)
    halves = words(key, first, last - first).astype("<u8", copy=False).view("<u2")
    return halves[start - 4 * first :][:count].astype(np.uint16, copy=False)


def uint8s(key: int, start: int, count: int) -> NDArray[np.uint8]:
    """Returns 8-bit uniform integers: eight a word, lowest bits first.

    Returns:
        uint8 [count].
    """
    first, last = start // 8, -(-(start + count) // 8)
    octets = words(key, first, last - first).astype("<u8", copy=False).view(np.uint8)
    return octets[start - 8 * first :][:count]


def permutation(key: int, count: int) -> NDArray[np.int64]:
    """Returns a random order of `0 .. count-1`: the stable sort of `count` words.

    Returns:
        int64 [count].
    """
    return np.argsort(words(key, 0, count), kind="stable")
