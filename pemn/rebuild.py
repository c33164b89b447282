"""Spec + mask -> weights, at memory speed, the same bits everywhere.

A weight is `float32(value) * scale`, rounded once, where its mask bit is set, and +0.0 elsewhere; or the sum of several
such values, times the scale. The mask is put in by a bitwise AND: multiplying by 0 would leave -0.0 in the place of
negative weights, and another hash.

Source: docs/wire.md, "Weights".
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pemn.errors import LocalError
from pemn.mask import Mask, untied
from pemn.prototype import Source, values
from pemn.spec import ModelSpec

_BLOCK_WEIGHTS = 1 << 18  # 1 MiB of float32 fits a cache; shorter blocks make numpy's calls count

# Row b holds, for each of the 8 bits of byte b, all ones or all zeros: what to AND eight weights with.
_BYTE_MASKS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(
    np.uint32
) * np.uint32(0xFFFFFFFF)


def frozen_weights(spec: ModelSpec) -> NDArray[np.float32]:
    """Returns the weights before any mask, layer after layer; of those that are sums, each term.

    Returns:
        float32 [spec.num_values].
    """
    tiles = []
    for layer, source in zip(spec.layers, spec.sources, strict=True):
        drawn = values(spec.seed, source, spec.distribution, 0, min(source.period, layer.num_values))
        tiles.append(np.resize(_scaled(drawn, layer.scale), layer.num_values))
    return np.concatenate(tiles)


def rebuild(spec: ModelSpec, mask: Mask) -> NDArray[np.float32]:
    """Returns the weights of a model, layer after layer.

    Args:
        spec: The network.
        mask: Which of its weights are kept.

    Returns:
        float32 [spec.num_params].

    Raises:
        LocalError: If the mask is of another network.
    """
    mask = untied(mask, spec.value_sizes, spec.tie)
    out, prototypes = np.empty(spec.num_params, np.float32), _repeated_prototypes(spec)
    begin, scaled, scaled_by = 0, np.empty(0, np.float32), None
    for index, (layer, source) in enumerate(zip(spec.layers, spec.sources, strict=True)):
        weights, packed = out[begin : begin + layer.size], mask.layer(index)
        # A sum is of values as they are drawn, and scaled once.
        scale = layer.scale if layer.terms == 1 else 1.0
        kept = weights if layer.terms == 1 else np.empty(layer.num_values, np.float32)
        if source.stream in prototypes:
            if scaled_by != (source.stream, scale):
                scaled, scaled_by = _scaled(prototypes[source.stream], scale), (source.stream, scale)
            _repeat(kept, _tile(scaled[: source.period], kept.size), packed)
        else:
            for at in range(0, kept.size, _BLOCK_WEIGHTS):
                block = kept[at : at + _BLOCK_WEIGHTS]
                drawn = values(spec.seed, source, spec.distribution, at, block.size)
                _select(block, _scaled(drawn, scale), packed[at // 8 :])
        if layer.terms > 1:
            weights[:] = _scaled(_sum(kept.reshape(layer.terms, layer.size)), layer.scale)
        begin += layer.size
    return out


def apply_mask(frozen: NDArray[np.float32], mask: Mask) -> NDArray[np.float32]:
    """Returns the weights of another mask, for who has the frozen weights at hand: `rebuild` without the seed.

    Args:
        frozen: float32 [n], as `frozen_weights` returns them.
        mask: Of the same network, a bit a weight (`pemn.mask.untied`).

    Returns:
        float32 [n], a new array.

    Raises:
        LocalError: If the mask is of another number of weights.
    """
    if frozen.shape != (sum(mask.sizes),):
        raise LocalError("mask of another network", got=sum(mask.sizes), wanted=frozen.shape)
    out, begin = np.empty_like(frozen), 0
    for index, size in enumerate(mask.sizes):
        _repeat(out[begin : begin + size], frozen[begin : begin + size], mask.layer(index))
        begin += size
    return out


def named_tensors(
    spec: ModelSpec, weights: NDArray[np.float32], floats: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Returns the tensors of a network by name, as views.

    Args:
        spec: The network.
        weights: float32 [n], layer after layer, as `rebuild` returns them.
        floats: float32 [spec.num_floats], tensor after tensor.
    """
    layers = np.split(weights, np.cumsum(spec.sizes)[:-1])
    rest = np.split(floats, np.cumsum([tensor.size for tensor in spec.floats])[:-1])
    named = {layer.name: part.reshape(layer.shape) for layer, part in zip(spec.layers, layers, strict=True)}
    return named | {
        tensor.name: part.reshape(tensor.shape) for tensor, part in zip(spec.floats, rest, strict=False)
    }


def weights_sha256(weights: NDArray[np.float32]) -> bytes:
    """Returns the hash by which two ends know that they have the same network.

    Args:
        weights: float32 [n] as `rebuild` returns them; hashed as little-endian bytes.
    """
    return hashlib.sha256(weights.astype("<f4", copy=False).tobytes()).digest()


def _repeated_prototypes(spec: ModelSpec) -> dict[int, NDArray[np.float32]]:
    """Returns the streams whose values are read more than once, as many values as the largest reader needs."""
    num_readers = Counter(source.stream for source in spec.sources)
    repeating = {s.stream for s, size in zip(spec.sources, spec.value_sizes, strict=True) if s.period < size}
    return {
        stream: values(spec.seed, Source(stream, count), spec.distribution, 0, count)
        for stream, count in spec.stream_lengths.items()
        if num_readers[stream] > 1 or stream in repeating
    }


def _scaled(drawn: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    return drawn * np.float32(scale)


def _sum(terms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Adds rows one after the other: `np.sum` may choose another order, and other last places."""
    total: NDArray[np.float32] = terms[0].copy()
    for row in terms[1:]:
        total += row
    return total


def _tile(scaled: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Returns a layer's values, repeated to whole bytes of mask and about a block."""
    if scaled.size < size:
        whole = math.lcm(scaled.size, 8)
        scaled = np.resize(scaled, min(whole * -(-_BLOCK_WEIGHTS // whole), -(-size // 8) * 8))
    return scaled[:size]


def _repeat(out: NDArray[np.float32], tile: NDArray[np.float32], packed: NDArray[np.uint8]) -> None:
    """Writes `out[i] = tile[i % len(tile)]` where bit i is set, else +0.0."""
    for first in range(0, out.size, tile.size):
        for begin in range(first, min(first + tile.size, out.size), _BLOCK_WEIGHTS):
            end = min(begin + _BLOCK_WEIGHTS, first + tile.size, out.size)
            _select(out[begin:end], tile[begin - first : end - first], packed[begin // 8 :])


def _select(out: NDArray[np.float32], weights: NDArray[np.float32], packed: NDArray[np.uint8]) -> None:
    """Writes `out[i] = weights[i]` where bit i is set, else +0.0."""
    bits, whole = out.view(np.uint32), out.size // 8 * 8
    np.take(_BYTE_MASKS, packed[: whole // 8], axis=0, out=bits[:whole].reshape(-1, 8), mode="clip")
    if whole < out.size:
        bits[whole:] = _BYTE_MASKS[packed[whole // 8], : out.size - whole]
    np.bitwise_and(bits, weights.view(np.uint32), out=bits)
