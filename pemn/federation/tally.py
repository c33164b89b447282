"""What the server learns from a round's votes, and which of it it tells.

Source: docs/wire.md, "Tally".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pemn.errors import LocalError
from pemn.federation.flips import Flips, masks
from pemn.federation.levels import HALF, MAX_STEPS
from pemn.federation.planes import GROUP, BitPlanes
from pemn.wire.protocols import MaskProtocol

UNIT = 1 << 24
"""p_hat is an int32 in units of 2^-24: probability 1 is UNIT."""

_PER_LEVEL = UNIT // 65536

# Weights that are worked on at a time, so that what is computed on the way stays in the cache; a multiple of 8.
_BLOCK_WEIGHTS = 1 << 17


class Tally:
    """Adds up the votes of a round; their order does not matter.

    Memory grows with the logarithm of the number of votes K: log2(K) + 2 bits a weight at most, and the votes that
    wait to be counted, less than 8 (a byte a weight).

    Attributes:
        num_params: n, the number of weights.
    """

    def __init__(self, num_params: int) -> None:
        self.num_params = num_params
        self._planes = BitPlanes(-(-num_params // 8))
        self._waiting: list[Flips] = []
        self._num_votes = 0

    @property
    def num_votes(self) -> int:
        """Number of votes so far, K."""
        return self._num_votes

    def add(self, vote: Flips) -> None:
        """Takes one vote.

        It may be kept until it is counted: neither its mask nor the public state of its draw may be changed.

        Raises:
            LocalError: If it is of another number of weights.
        """
        num_params, mask = vote.draw.levels.num_params, vote.mask
        fits = mask.dtype == np.uint8 and mask.shape == (-(-self.num_params // 8),)
        if num_params != self.num_params or not fits:
            got = f"{num_params} weights, {mask.dtype} {mask.shape}"
            wanted = f"{self.num_params} weights, uint8 ({-(-self.num_params // 8)},)"
            raise LocalError("size of a vote", got=got, wanted=wanted)
        self._waiting.append(vote)
        self._num_votes += 1
        if 2 * len(self._waiting) == GROUP:
            self._count()

    def sums(self, start: int, stop: int) -> NDArray[np.int32]:
        """Returns the sum of all votes for each of the weights start .. stop - 1: int32, -K .. K.

        Args:
            start: First weight, a multiple of 8.
            stop: End, at most n.

        Raises:
            LocalError: If there are no such weights or `start` is no multiple of 8.
        """
        return self.counters(start, stop) - np.int32(self.num_votes)

    def counters(self, start: int, stop: int) -> NDArray[np.int32]:
        """Returns the sums plus K: int32, 0 .. 2 K; see `sums`."""
        if start % 8 or not 0 <= start <= stop <= self.num_params:
            wanted = f"a multiple of 8 and an end, within 0 .. {self.num_params}"
            raise LocalError("weights of a tally", got=f"{start} .. {stop}", wanted=wanted)
        self._count()
        return self._planes.integers(start, stop)

    def _count(self) -> None:
        votes, self._waiting = self._waiting, []
        if votes:
            self._planes.add(
                2 * len(votes),
                lambda start, stop: list(masks(votes, 8 * start, min(8 * stop, self.num_params))),
            )


def start(q: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Returns p_hat before the first round, int32 [n]: what is public."""
    return q.astype(np.int32) * _PER_LEVEL


def learn(protocol: MaskProtocol, round_: int, p_hat: NDArray[np.int32], tally: Tally) -> NDArray[np.int32]:
    """Returns p_hat after a round, a new array; what it was if nobody voted.

    Every vote moves every weight by at most `eta / K`, whatever its bytes were.

    Args:
        protocol: For eta.
        round_: Which round, from 1.
        p_hat: int32 [n], 0 .. UNIT.
        tally: Of the n weights.

    Raises:
        LocalError: If it is of another number of weights.
    """
    if p_hat.shape != (tally.num_params,):
        raise LocalError("tally of another network", got=tally.num_params, wanted=p_hat.size)
    num_votes = tally.num_votes
    learnt = p_hat.copy()
    if num_votes == 0:
        return learnt
    # The move is a function of the sum alone: a table instead of 64-bit divisions. One of more than UNIT goes to a
    # bound from anywhere, and so does UNIT itself, which an int32 holds.
    sums = np.arange(-num_votes, num_votes + 1, dtype=np.int64)
    eta_num = protocol.eta_num.at(round_)
    moves = (eta_num * sums * UNIT // (protocol.eta_den * num_votes)).clip(-UNIT, UNIT)
    moves = moves.astype(np.int32)
    for block in _blocks(p_hat.size):
        part = learnt[block]
        part += moves.take(tally.counters(block.start, block.stop))
        part.clip(0, UNIT, out=part)
    return learnt


def forget(
    protocol: MaskProtocol, round_: int, p_hat: NDArray[np.int32], q: NDArray[np.uint16]
) -> NDArray[np.int32]:
    """Returns p_hat after it has gone back a part of its way from q, a new array.

    Args:
        protocol: For what it keeps of that way.
        round_: Which round, from 1.
        p_hat: int32 [n], 0 .. UNIT.
        q: uint16 [n], what the round's clients began from.
    """
    forgot, keep = np.empty_like(p_hat), protocol.keep.at(round_)
    for block in _blocks(p_hat.size):
        at = q[block].astype(np.int32) * _PER_LEVEL
        away = (p_hat[block] - at).astype(np.int64)
        forgot[block] = at + away * keep // 256
    return forgot


def settle(
    protocol: MaskProtocol, round_: int, p_hat: NDArray[np.int32], k: NDArray[np.int8], q: NDArray[np.uint16]
) -> NDArray[np.int8]:
    """Returns k, moved by whole strides where p_hat has left the dead zone, half a stride around q.

    What is not told stays in p_hat, but for its leak.

    Args:
        protocol: For step and stride.
        round_: Which round, from 1.
        p_hat: int32 [n], 0 .. UNIT.
        k: int8 [n], as it was.
        q: uint16 [n], the probabilities of `k`.
    """
    stride = protocol.stride.at(round_)
    width = stride * protocol.step * _PER_LEVEL
    settled = np.empty_like(k)
    for block in _blocks(k.size):
        # Below 2^26 all the way: p_hat, 256 q and the width are at most 2^24.
        distance = p_hat[block] - q[block].astype(np.int32) * _PER_LEVEL
        strides = (2 * distance + width) // (2 * width)
        settled[block] = (k[block] + stride * strides).clip(-MAX_STEPS, MAX_STEPS)
    return settled


def average(
    protocol: MaskProtocol, round_: int, mean: NDArray[np.int32], p_hat: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Returns the average of p_hat over about the last `window` rounds, or a quarter of all so far if they are fewer.

    Clients whose data differ pull p_hat to and fro from round to round; its average lies between.

    Args:
        protocol: For the window.
        round_: Which round, from 1.
        mean: Before it, int32 [n], 0 .. UNIT.
        p_hat: After it, int32 [n], 0 .. UNIT.

    Returns:
        int32 [n], 0 .. UNIT, a new array.
    """
    return mean + (p_hat - mean) // min(protocol.window, 1 + round_ // 4)


def agree(
    protocol: MaskProtocol,
    round_: int,
    p_hat: NDArray[np.int32],
    k: NDArray[np.int8],
    starts: NDArray[np.uint16],
) -> NDArray[np.int8]:
    """Returns k, each moved by as few strides as it must so that `q > 1/2` says the same as `p_hat > 1/2`.

    Whole strides, so that q is not next to 1/2, where the next vote would bring it back.

    Args:
        protocol: For step and stride.
        round_: Which round, from 1.
        p_hat: int32 [n], 0 .. UNIT; or its average.
        k: int8 [n], as it was.
        starts: uint16 [n], the probabilities of k = 0.
    """
    stride = protocol.stride.at(round_)
    agreed = np.empty_like(k)
    for block in _blocks(k.size):
        # Of the levels up to 1/2, the greatest; the next one is above it. With MIN_STEP both are within an int8.
        below = (HALF - starts[block].astype(np.int32)) // protocol.step
        strides = (below - k[block]) // stride
        strides = np.where(p_hat[block] > UNIT // 2, np.maximum(strides + 1, 0), np.minimum(strides, 0))
        agreed[block] = (k[block] + stride * strides).clip(-MAX_STEPS, MAX_STEPS)
    return agreed


def _blocks(num_params: int) -> Iterator[slice]:
    for first in range(0, num_params, _BLOCK_WEIGHTS):
        yield slice(first, min(first + _BLOCK_WEIGHTS, num_params))
