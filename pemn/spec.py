"""What both ends must agree on to build the same network from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pemn.distribution import Distribution
from pemn.errors import DataError, LocalError
from pemn.prototype import Source, Strategy, sources, stream_lengths, unique_values


def to_float32(value: float) -> float:
    """Returns `value` rounded to the nearest float32."""
    return float(np.float32(value))


@dataclass(frozen=True)
class Layer:
    """One masked weight tensor.

    Attributes:
        name: Its name in the model's `state_dict`.
        shape: Its shape, as torch has it (output channels first).
        scale: float32 > 0 that its prototype values are multiplied by.
        terms: A weight is the sum of this many masked values, 1 .. 64.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    terms: int = 1

    def __post_init__(self) -> None:
        """Checks that the layer can exist."""
        finite = math.isfinite(self.scale) and self.scale > 0
        if not finite or self.scale != to_float32(self.scale):
            raise LocalError("layer scale", got=self.scale, wanted="a float32 > 0", where=self.name)
        if not self.shape or min(self.shape) < 1:
            raise LocalError("layer shape", got=self.shape, wanted="sizes >= 1", where=self.name)
        if not 1 <= self.terms <= 64:
            raise LocalError("terms of a weight", got=self.terms, wanted="1 .. 64", where=self.name)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def num_values(self) -> int:
        """Number of frozen values: all first terms, then all second ones, and so on."""
        return self.terms * self.size


@dataclass(frozen=True)
class FloatTensor:
    """A tensor of a network that no mask can express: it is trained, or measured, as float32.

    Attributes:
        name: Its name in the model's `state_dict`.
        shape: Its shape; () for a scalar.
    """

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks that it can exist."""
        if min(self.shape, default=1) < 1:
            raise LocalError("shape of floats", got=self.shape, wanted="sizes >= 1", where=self.name)

    @property
    def size(self) -> int:
        """Number of floats."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class InputContract:
    """What a network is fed: `(pixels / 255 - mean) / std`, float32, batch x channels x height x width.

    Attributes:
        shape: (channels, height, width) of one image.
        mean: Per channel, in units of the full range 0 .. 1.
        std: Per channel, > 0, same units.
        class_names: Name of each output, in order.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks that the parts fit each other."""
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise LocalError("input contract", got=(self.mean, self.std), wanted="one a channel")
        if not all(math.isfinite(v) for v in self.mean + self.std) or min(self.std) <= 0:
            raise LocalError("input contract", got=(self.mean, self.std), wanted="finite, std > 0")

    def normalise(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns what the network is fed: `(pixels / 255 - mean) / std`, every step rounded to float32.

        Args:
            images: uint8 [N, channels, height, width].

        Returns:
            float32 [N, channels, height, width].

        Raises:
            DataError: If the images have another shape or dtype.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.shape:
            raise DataError(
                "images do not fit the network",
                got=f"{images.dtype} {list(images.shape)}",
                wanted=f"uint8 [N, {', '.join(map(str, self.shape))}]",
            )
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        out = images.astype(np.float32)
        out /= np.float32(255)
        out -= mean
        out /= std
        return out


@dataclass(frozen=True)
class ModelSpec:
    """A network without its mask: with a mask it is a model.

    Attributes:
        architecture: A name that `pemn.training.networks.build` knows, such as `mlp-256-256`.
        input: What the network is fed.
        layers: The masked layers, in `state_dict` order; flat indices run through them in this order.
        seed: 64-bit seed of the frozen weights, 0 .. 2^64-1.
        strategy: How a prototype fills the layers.
        structure: 16 bytes, a hash of the module tree that `architecture` stands for: an end that builds it compares
            them (`pemn.training.structure`).
        distribution: What the prototype's values look like.
        floats: What else it is made of, in `state_dict` order; none in a federation.
        tie: How many values of a layer share a bit of the mask, 1 .. 256 (`pemn.mask.untied`).
    """

    architecture: str
    input: InputContract
    layers: tuple[Layer, ...]
    seed: int
    strategy: Strategy
    structure: bytes
    distribution: Distribution = Distribution.SIGNED
    floats: tuple[FloatTensor, ...] = ()
    tie: int = 1

    def __post_init__(self) -> None:
        """Checks that the network can exist."""
        if not self.layers:
            raise LocalError("model without masked layers", where=self.architecture)
        names = [layer.name for layer in self.layers] + [tensor.name for tensor in self.floats]
        if len(set(names)) != len(names):
            raise LocalError("two tensors of one name", where=self.architecture)
        if not 0 <= self.seed < 1 << 64:
            raise LocalError("seed", got=self.seed, wanted="0 .. 2^64-1")
        if not 1 <= self.tie <= 256:
            raise LocalError("values that share a bit", got=self.tie, wanted="1 .. 256")
        if len(self.structure) != 16:
            raise LocalError("bytes of the structure", got=len(self.structure), wanted=16)

    @property
    def num_classes(self) -> int:
        """Number of outputs."""
        return len(self.input.class_names)

    @cached_property
    def num_params(self) -> int:
        """Number of masked weights."""
        return sum(self.sizes)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its name: the masked layers', then the floats'."""
        layers = {layer.name: layer.shape for layer in self.layers}
        return layers | {tensor.name: tensor.shape for tensor in self.floats}

    @property
    def num_floats(self) -> int:
        """Number of floats besides the masked weights."""
        return sum(tensor.size for tensor in self.floats)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each layer."""
        return tuple(layer.size for layer in self.layers)

    @cached_property
    def value_sizes(self) -> tuple[int, ...]:
        """Number of frozen values of each layer."""
        return tuple(layer.num_values for layer in self.layers)

    @cached_property
    def num_values(self) -> int:
        """Number of frozen values: those of the weights, more if weights are sums."""
        return sum(self.value_sizes)

    @cached_property
    def bit_sizes(self) -> tuple[int, ...]:
        """Number of bits of each layer's mask."""
        return tuple(-(-size // self.tie) for size in self.value_sizes)

    @cached_property
    def num_bits(self) -> int:
        """Number of bits of the mask."""
        return sum(self.bit_sizes)

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """Where each layer's values come from."""
        return tuple(sources(self.strategy, self._value_shapes))

    @cached_property
    def stream_lengths(self) -> dict[int, int]:
        """How many values of each stream the layers use."""
        return stream_lengths(self.sources, self.value_sizes)

    @property
    def unique_values(self) -> int:
        """How many generated values the weights are made of."""
        return unique_values(self.strategy, self._value_shapes)

    @property
    def paper_compression_ratio(self) -> float:
        """What the paper saves against float32 weights, in percent.

        It counts the bits of the mask and a float32 for each unique value; floats and all else of a file it leaves out.

        Source: PEMN (NeurIPS 2022), Section 4.3; the formula is the one that gives the numbers of its Figure 4.
        """
        bits_per_param = self.num_values / (self.tie * self.num_params)
        return 100 * (1 - bits_per_param / 32 - self.unique_values / self.num_params)

    @cached_property
    def _value_shapes(self) -> list[tuple[int, ...]]:
        return [(layer.terms, *layer.shape) for layer in self.layers]
