"""A released mask as bytes: about a bit a weight at most, less where the seed says what is likely.

Where training began is drawn from the seed. A weight that began near 0 or 1 mostly ended there, so the draw is a good
context. A reader needs no table of levels for it, only where among the draws the contexts change.

Source: docs/wire.md, "Released masks".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Decisions, Reader, encode
from pemn.codec.bits import pack, unpack
from pemn.errors import MalformedFrame
from pemn.federation.contexts import start_buckets
from pemn.federation.fast import kernels
from pemn.federation.groups import LayerGroups
from pemn.federation.levels import ONE, start_draws, start_table
from pemn.mask import Mask
from pemn.wire.protocols import FedPMProtocol, MaskProtocol


def start_edges(protocol: MaskProtocol | FedPMProtocol) -> tuple[int, ...]:
    """Returns the draws at which the log odds of the start levels enter the next half octave.

    Returns:
        At most 31 integers, ascending, each 1 .. 65535; none if all weights start alike.
    """
    buckets = start_buckets(start_table(protocol.start_levels))
    return tuple((np.flatnonzero(np.diff(buckets)) + 1).tolist())


def edges_fit(edges: tuple[int, ...]) -> bool:
    """Returns whether edges part the draws: ascending, each 1 .. 65535."""
    return all(a < b for a, b in pairwise((0, *edges, ONE)))


def encode_mask(mask: Mask, seed: int, edges: tuple[int, ...]) -> bytes:
    """Codes a mask.

    Args:
        mask: Of all layers.
        seed: The network's.
        edges: What `start_edges` returned, or none.
    """
    flat, contexts = mask.flat(), _Contexts(seed, edges, LayerGroups.of(mask.sizes))

    def decide(start: int, stop: int) -> list[Decisions]:
        return [(unpack(flat, start, stop), contexts.block(start, stop))]

    return encode(sum(mask.sizes), decide, contexts.shape, contexts.groups.restarts)


def decode_mask(data: bytes, sizes: tuple[int, ...], seed: int, edges: tuple[int, ...]) -> Mask:
    """Reads what `encode_mask` wrote.

    Args:
        data: The coded mask.
        sizes: Number of weights of each layer.
        seed: The network's.
        edges: As the encoder had them.

    Raises:
        MalformedFrame: If the data are no canonical mask, or there can be no such edges.
    """
    if not edges_fit(edges):
        raise MalformedFrame("start edges", got=edges, wanted="ascending, 1 .. 65535")
    contexts, num_params = _Contexts(seed, edges, LayerGroups.of(sizes)), sum(sizes)
    reader, flat = Reader(data, contexts.shape), np.empty(-(-num_params // 8), np.uint8)
    for start, stop in contexts.groups.blocks():
        flat[start // 8 : -(-stop // 8)] = pack(reader.read(contexts.block(start, stop)))
        reader.end_block()
    reader.finish()
    return Mask.from_flat(flat, sizes)


@dataclass(frozen=True)
class _Contexts:
    """Which draw a weight began with, as far as the edges tell, and its layer group."""

    seed: int
    edges: tuple[int, ...]
    groups: LayerGroups

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.edges) + 1, self.groups.count)

    def block(self, start: int, stop: int) -> NDArray[np.uint16]:
        contexts = self.groups.ids(start, stop)
        if self.edges:
            fast = kernels()
            contexts += (fast.take if fast else np.take)(self._by_draw, start_draws(self.seed, start, stop))
        return contexts

    @cached_property
    def _by_draw(self) -> NDArray[np.uint16]:
        digits = np.arange(len(self.edges) + 1, dtype=np.uint16) * np.uint16(self.groups.count)
        return np.repeat(digits, np.diff((0, *self.edges, ONE)))
