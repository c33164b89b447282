"""How a short prototype of random values fills every layer (PEMN, NeurIPS 2022).

Every strategy comes down to one rule: layer `l` reads values `0 .. period-1` of one stream and repeats them from
its own first weight on. The strategies differ in the stream and the period:

    strategy    stream of layer l                 period                         paper
    full        l                                 its own size                   "Mask"
    one-layer   first layer of the same shape     its own size                   equation 5
    mp          the largest layer                 size of the largest layer      equation 8
    rp:RATIO    the largest layer                 int(largest * RATIO) + 1       equation 9, Algorithm 3
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pemn.distribution import Distribution, draw
from pemn.errors import ConfigError
from pemn.generator import Purpose, child

_RP = re.compile(r"rp:([0-9.]+(?:e-?[0-9]+)?)")


@dataclass(frozen=True)
class Strategy:
    """Which values fill which layer.

    Attributes:
        kind: `full`, `one-layer`, `mp` or `rp`.
        ratio: For `rp`, the prototype's length as a share of the largest layer, 0 < ratio <= 1; else 1.
    """

    kind: str
    ratio: float = 1.0

    def __post_init__(self) -> None:
        """Checks that there is such a strategy.

        Raises:
            ConfigError: If there is not.
        """
        if self.kind == "rp" and 0.0 < self.ratio <= 1.0:
            return
        if self.kind not in ("full", "one-layer", "mp") or self.ratio != 1.0:
            raise _unknown(self)

    @classmethod
    def parse(cls, text: str) -> Strategy:
        """Reads `full`, `one-layer`, `mp` or `rp:RATIO`.

        Raises:
            ConfigError: If `text` is none of these or the ratio is not in (0, 1].
        """
        if text in ("full", "one-layer", "mp"):
            return cls(text)
        if match := _RP.fullmatch(text):
            try:
                return cls("rp", float(match[1]))
            except (ValueError, ConfigError):
                pass
        raise _unknown(text)

    def __str__(self) -> str:
        """Returns the one spelling that `parse` reads back to the same value."""
        return f"rp:{self.ratio!r}" if self.kind == "rp" else self.kind


def _unknown(got: object) -> ConfigError:
    wanted = "full, one-layer, mp or rp:RATIO with 0 < RATIO <= 1"
    return ConfigError("unknown strategy", got=repr(str(got)), wanted=wanted)


@dataclass(frozen=True)
class Source:
    """Where a layer's values come from: `value(i) = stream[i % period]`."""

    stream: int
    period: int


def sources(strategy: Strategy, shapes: Sequence[tuple[int, ...]]) -> list[Source]:
    """Returns the source of every layer.

    Args:
        strategy: How layers share values.
        shapes: Shape of each masked layer's values, in the model's order.
    """
    sizes = [math.prod(shape) for shape in shapes]
    if strategy.kind == "full":
        return [Source(i, size) for i, size in enumerate(sizes)]
    if strategy.kind == "one-layer":
        return [Source(shapes.index(s), size) for s, size in zip(shapes, sizes, strict=True)]
    largest = sizes.index(max(sizes))
    period = sizes[largest]
    if strategy.kind == "rp":
        # The published rule adds one, so that no ratio gives an empty prototype; it must not outgrow its layer.
        period = min(int(period * strategy.ratio) + 1, period)
    return [Source(largest, period)] * len(sizes)


def unique_values(strategy: Strategy, shapes: Sequence[tuple[int, ...]]) -> int:
    """Returns how many generated values the network's weights are made of (before scales and masks)."""
    return sum(stream_lengths(sources(strategy, shapes), list(map(math.prod, shapes))).values())


def stream_lengths(sources: Sequence[Source], sizes: Sequence[int]) -> dict[int, int]:
    """Returns for each stream how many of its values are used, by the layer that uses most of them.

    Args:
        sources: Of each layer.
        sizes: Number of weights of each layer.
    """
    longest: dict[int, int] = {}
    for source, size in zip(sources, sizes, strict=True):
        longest[source.stream] = max(longest.get(source.stream, 0), min(source.period, size))
    return longest


def values(
    seed: int, source: Source, distribution: Distribution, start: int, count: int
) -> NDArray[np.float32]:
    """Returns values `start .. start + count - 1` of a source; `start + count` is at most `source.period`.

    Args:
        seed: The run's seed, 0 .. 2^64-1.
        source: Which stream.
        distribution: What its values look like.
        start: First value.
        count: How many.

    Returns:
        float32 [count], each of them a binary16.
    """
    return draw(distribution, child(seed, Purpose.WEIGHTS, source.stream), start, count)
