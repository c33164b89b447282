"""The uplink: where a client's sampled mask differs from the one that anybody can compute.

With the shared dither u, the client's mask is `[u < p]` for its trained probabilities p, and the public one is
`[u < q]`. Only their XOR travels. A bit can flip only where u lies between q and p, so the distance |u - q| says
how likely it is.

Source: docs/wire.md, "Flips".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Contexts, decode, encode

# Buckets of |u - q| in 1/65536, each twice as wide as the one before it.
_DISTANCE_EDGES = np.array([32 << i for i in range(11)], np.int32)
_NUM_DISTANCES = _DISTANCE_EDGES.size + 1


def encode_flips(trained: NDArray[np.uint16], q: NDArray[np.uint16], u: NDArray[np.uint16]) -> bytes:
    """Codes a client's vote.

    Args:
        trained: p, uint16 [n], in 1/65536.
        q: Public probabilities, uint16 [n], in 1/65536.
        u: Dither of this round and slot, uint16 [n].
    """
    return encode((u < trained) ^ (u < q), _contexts(q, u))


def decode_votes(data: bytes, q: NDArray[np.uint16], u: NDArray[np.uint16]) -> NDArray[np.int8]:
    """Reads a client's vote as what it adds to the tally.

    Its expectation over u is `p - q`, and its variance only `|p - q|` (docs/algorithm.md).

    Args:
        data: What `encode_flips` returned.
        q: As the client had it, uint16 [n].
        u: Dither of this round and slot, uint16 [n].

    Returns:
        int8 [n]: +1 where the client's mask has a bit that the public one lacks, -1 where it lacks one.

    Raises:
        MalformedFrame: If the data are no canonical flip mask.
    """
    flips = decode(data, q.size, _contexts(q, u)).astype(np.int8)
    return np.where(u < q, -flips, flips)


def _contexts(q: NDArray[np.uint16], u: NDArray[np.uint16]) -> Contexts:
    def ids(start: int, stop: int) -> NDArray[np.uint8]:
        distance: NDArray[np.int32] = np.abs(u[start:stop].astype(np.int32) - q[start:stop])
        return np.searchsorted(_DISTANCE_EDGES, distance, side="right").astype(np.uint8)

    return Contexts(_NUM_DISTANCES, ids)
