"""The downlink: how far the integers k of the public state have moved.

For each block of weights: which move at all; of those, which downwards; of those, which by at least two steps; of
those, which by at least three; and so on up to seven. What is more than seven steps comes as eight bits, so that no
message can stand for endless work. One form serves the next round, a client that missed some, and a keyframe (the
moves since round 0).

Source: docs/wire.md, "Moves".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Decider, Decisions, Reader, encode, size
from pemn.errors import MalformedFrame
from pemn.federation.contexts import DOWN, MORE, TWO, move_contexts, move_shape, of_bit, of_kind
from pemn.federation.levels import MAX_STEPS, Levels

_UNARY = 7  # steps that are told one by one
_REST_BITS = 8


def encode_moves(before: NDArray[np.int8], after: NDArray[np.int8], levels: Levels) -> bytes:
    """Codes the change of k.

    Args:
        before: What the receiver has, int8 [n].
        after: What it is to have, int8 [n].
        levels: Of the network.

    Returns:
        The coded moves; empty if nothing moved.
    """
    if np.array_equal(before, after):
        return b""
    groups = levels.groups
    return encode(levels.num_params, _decisions(before, after, levels), move_shape(groups), groups.restarts)


def moves_size(before: NDArray[np.int8], after: NDArray[np.int8], levels: Levels) -> int:
    """Returns about how many bytes `encode_moves` returns; see `pemn.codec.size`."""
    if np.array_equal(before, after):
        return 0
    groups = levels.groups
    return size(levels.num_params, _decisions(before, after, levels), move_shape(groups), groups.restarts)


def _decisions(before: NDArray[np.int8], after: NDArray[np.int8], levels: Levels) -> Decider:
    groups = levels.groups

    def decide(start: int, stop: int) -> list[Decisions]:
        k = before[start:stop]
        moved = after[start:stop].astype(np.int16) - k
        contexts = move_contexts(levels.at(k, start), k, groups, start)
        inside = moved != 0
        out, which = [(inside, contexts)], np.flatnonzero(inside)
        contexts, moved = contexts[which], moved[which]
        out.append((moved < 0, of_kind(contexts, DOWN, groups)))
        steps, least = np.abs(moved), 2
        while steps.size and least <= _UNARY:  # lists of no weights leave no trace
            inside = steps >= least
            out.append((inside, of_kind(contexts, TWO if least == 2 else MORE, groups)))
            contexts, steps = contexts[inside], steps[inside]
            least += 1
        rest = steps - _UNARY
        for bit in reversed(range(_REST_BITS if rest.size else 0)):
            out.append(((rest >> bit & 1).astype(np.bool_), of_bit(contexts, bit, groups)))
        return out

    return decide


def decode_moves(data: bytes, before: NDArray[np.int8], levels: Levels) -> NDArray[np.int8]:
    """Reads what `encode_moves` wrote.

    Args:
        data: The coded moves.
        before: k as the receiver has it, int8 [n].
        levels: Of the network.

    Returns:
        The new k, int8 [n].

    Raises:
        MalformedFrame: If the data are no canonical moves, or lead out of the range of k.
    """
    after = before.copy()
    if not data:
        return after
    groups, reader, num_moves = levels.groups, Reader(data, move_shape(levels.groups)), 0
    for start, stop in groups.blocks():
        k = before[start:stop]
        contexts = move_contexts(levels.at(k, start), k, groups, start)
        which = np.flatnonzero(reader.read(contexts)).astype(np.uint16)  # a block has no more
        contexts = contexts[which]
        down = reader.read(of_kind(contexts, DOWN, groups))
        steps, least = np.ones(down.size, np.int16), 2
        inside = np.arange(down.size, dtype=np.uint16)
        while inside.size and least <= _UNARY:  # lists of no weights leave no trace
            kind = TWO if least == 2 else MORE
            inside = inside[reader.read(of_kind(contexts[inside], kind, groups))]
            steps[inside] = least
            least += 1
        for bit in reversed(range(_REST_BITS if inside.size else 0)):
            steps[inside] += reader.read(of_bit(contexts[inside], bit, groups)).astype(np.int16) << bit
        moved = k[which] + np.where(down, -steps, steps)
        if int(np.abs(moved).max(initial=0)) > MAX_STEPS:
            raise MalformedFrame("moves leave the range of k", wanted=f"-{MAX_STEPS} .. {MAX_STEPS}")
        after[start:stop][which] = moved
        num_moves += moved.size
        reader.end_block()
    reader.finish()
    if num_moves == 0:
        raise MalformedFrame("moves of nothing")
    return after
