"""What the server learns from a round's votes, and which of it it tells.

Source: docs/wire.md, "Tally".
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pemn.federation.levels import MAX_STEPS
from pemn.wire.spec import MaskProtocol

UNIT = 1 << 24
"""p_hat is an int32 in units of 2^-24: probability 1 is UNIT."""

_PER_LEVEL = UNIT // 65536


def start(q: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Returns p_hat before the first round, int32 [n]: what is public."""
    return q.astype(np.int32) * _PER_LEVEL


def learn(
    protocol: MaskProtocol, p_hat: NDArray[np.int32], votes: Iterable[NDArray[np.int8]]
) -> NDArray[np.int32]:
    """Returns p_hat after a round.

    Every vote moves every weight by at most `eta / K`, whatever its bytes were. The order of votes does not matter.

    Args:
        protocol: For eta.
        p_hat: int32 [n], 0 .. UNIT.
        votes: One int8 [n] a client, each -1, 0 or 1 (`pemn.federation.flips.decode_votes`).
    """
    tally, num_votes = np.zeros(p_hat.size, np.int64), 0
    for vote in votes:
        tally += vote
        num_votes += 1
    if num_votes == 0:
        return p_hat
    moved: NDArray[np.int64] = protocol.eta_num * tally * UNIT // (protocol.eta_den * num_votes)
    return (p_hat + moved).clip(0, UNIT).astype(np.int32)


def settle(
    protocol: MaskProtocol, p_hat: NDArray[np.int32], k: NDArray[np.int8], q: NDArray[np.uint16]
) -> NDArray[np.int8]:
    """Returns the new k: it moves where p_hat has left the dead zone, half a step around q.

    What is not told stays in p_hat; nothing is lost, only delayed.

    Args:
        protocol: For the step.
        p_hat: int32 [n].
        k: int8 [n], as it was.
        q: uint16 [n], the probabilities of `k`.
    """
    step = protocol.step * _PER_LEVEL
    distance = p_hat.astype(np.int64) - q.astype(np.int64) * _PER_LEVEL
    steps = (2 * distance + step) // (2 * step)
    return np.clip(k + steps, -MAX_STEPS, MAX_STEPS).astype(np.int8)
