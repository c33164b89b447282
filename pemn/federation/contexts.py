"""What both ends know about a decision before it is made, as small integers.

Probabilities count by their log odds: scores move by about equal steps on that scale wherever they are, so a distance
on it says how likely it is to be crossed.

Source: docs/wire.md, "Contexts"; what other contexts gave is in docs/algorithm.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemn.codec.log2 import LOG_ODDS
from pemn.federation.fast import kernels
from pemn.federation.groups import LayerGroups

# log2 odds of a probability in 1/65536, in 1/1024: int16 keeps the arithmetic on blocks short. They are within
# 17 octaves, those of a q within 10: so the difference of both fits as well.
_LOG_ODDS = (LOG_ODDS >> 6).astype(np.int16)
COARSE, FINE = 10, 9
"""Shifts: buckets of one octave of odds, and of half an octave."""

DISTANCES, LEVELS = 32, 16
"""Number of buckets of distances of the dither from q, and of q with them."""

_FINE_LEVELS, _SIGNS = 32, 3

_KINDS = 5
MOVES, DOWN, TWO, MORE, BITS = range(_KINDS)
"""Decisions about a move: is there one, downwards, by 2 or more, by 3 (then 4 ... 7) or more, bits of the rest."""


def _log_odds(levels: NDArray[np.uint16]) -> NDArray[np.int16]:
    fast = kernels()
    odds: NDArray[np.int16] = (fast.take if fast else np.take)(_LOG_ODDS, levels)
    return odds


def _bucket(log_odds: NDArray[np.int16], shift: int, count: int) -> NDArray[np.int16]:
    buckets: NDArray[np.int16] = (log_odds >> shift) + np.int16(count // 2)
    return buckets.clip(0, count - 1, out=buckets)


def start_buckets(levels: NDArray[np.uint16]) -> NDArray[np.int16]:
    """Returns the half octaves of odds, 0 .. 31, that probabilities in 1/65536 lie in."""
    return _bucket(_log_odds(levels), FINE, _FINE_LEVELS)


def flip_shape(groups: LayerGroups) -> tuple[int, ...]:
    """Returns the shape of `flip_contexts`."""
    return (DISTANCES, LEVELS, groups.count)


def flip_contexts(
    q: NDArray[np.uint16], u: NDArray[np.uint16], groups: LayerGroups, start: int
) -> NDArray[np.uint16]:
    """Returns the contexts of flips: how far the dither lies above q, q itself, the layer group.

    Args:
        q: Public probabilities of the weights from `start` on, uint16 [m], each LOWEST .. HIGHEST.
        u: Their dither, uint16 [m].
        groups: Of the network.
        start: First weight.
    """
    odds_q, odds_u, ids = _log_odds(q), _log_odds(u), groups.ids(start, start + q.size)
    fast = kernels()
    contexts: NDArray[np.uint16] = (fast.flip_contexts if fast else _flip_contexts)(
        odds_q, odds_u, ids, groups.count
    )
    return contexts


def _flip_contexts(
    odds_q: NDArray[np.int16], odds_u: NDArray[np.int16], ids: NDArray[np.uint16], num_groups: int
) -> NDArray[np.uint16]:
    contexts = _bucket(odds_u - odds_q, FINE, DISTANCES)
    contexts *= LEVELS
    contexts += _bucket(odds_q, COARSE, LEVELS)
    contexts *= num_groups
    return contexts.view(np.uint16) + ids


def move_shape(groups: LayerGroups) -> tuple[int, ...]:
    """Returns the shape of contexts of moves: the kind of decision, then `move_contexts`."""
    return (_KINDS, _FINE_LEVELS, _SIGNS, groups.count)


def move_contexts(
    q: NDArray[np.uint16], k: NDArray[np.int8], groups: LayerGroups, start: int
) -> NDArray[np.uint16]:
    """Returns the contexts of the decisions MOVES: q, the sign of k, the layer group.

    Args:
        q: Probabilities of the base from `start` on, uint16 [m], each LOWEST .. HIGHEST.
        k: int8 [m].
        groups: Of the network.
        start: First weight.
    """
    contexts = _bucket(_log_odds(q), FINE, _FINE_LEVELS)
    contexts *= _SIGNS
    contexts += np.sign(k) + np.int8(1)
    contexts *= groups.count
    return contexts.view(np.uint16) + groups.ids(start, start + q.size)


def of_kind(contexts: NDArray[np.uint16], kind: int, groups: LayerGroups) -> NDArray[np.uint16]:
    """Returns the contexts of the same weights for another kind of decision."""
    return contexts + np.uint16(kind * _FINE_LEVELS * _SIGNS * groups.count)


def of_bit(contexts: NDArray[np.uint16], bit: int, groups: LayerGroups) -> NDArray[np.uint16]:
    """Returns the contexts of the same weights for a bit of the rest: its number stands in the place of q."""
    a_level = _SIGNS * groups.count
    return contexts % np.uint16(a_level) + np.uint16((BITS * _FINE_LEVELS + bit) * a_level)
