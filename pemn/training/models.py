"""From a network to its description, and the check that both ends build the same one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from pemn.distribution import Distribution
from pemn.errors import ConfigError, WrongSpec
from pemn.prototype import Strategy, sources
from pemn.spec import InputContract, Layer, ModelSpec, to_float32
from pemn.training.networks import build
from pemn.training.rules import Rules, plan
from pemn.training.structure import structure_hash


@dataclass(frozen=True)
class WeightInit:
    """How the frozen weights are drawn: a value of mean 0 and variance 1, times gain / sqrt(fan_in).

    Attributes:
        distribution: What the values look like.
        gain: sqrt(2) is Kaiming's for ReLU.
        rescale: Whether fan_in is each layer's own. If not, it is that of the layer whose values are used, as the
            paper has it: then a layer that takes over the values of a wider one has small weights, which a norm after
            it makes good.
    """

    distribution: Distribution = Distribution.SIGNED
    gain: float = 2.0
    rescale: bool = True

    def __post_init__(self) -> None:
        """Checks the gain.

        Raises:
            ConfigError: If it is no number above 0.
        """
        if not 0 < self.gain < 1e6:
            raise ConfigError("gain of the weights", got=self.gain, wanted="a number above 0, below 1e6")


PAPER = WeightInit(Distribution.NORMAL, math.sqrt(2.0), rescale=False)
"""Kaiming normal, and every layer as wide as the prototype's: PEMN's own."""


def model_spec(
    architecture: str,
    contract: InputContract,
    seed: int,
    strategy: Strategy,
    init: WeightInit | None = None,
    rules: Rules | None = None,
) -> ModelSpec:
    """Returns the description of a built-in or installed network, from which any end can rebuild it; see `describe`.

    Args:
        architecture: See `pemn.training.networks.build`.
        contract: What the network is fed, and its classes.
        seed: 64-bit seed of its weights.
        strategy: How a prototype fills its layers.
        init: How the weights are drawn; the signed constant 2 / sqrt(fan_in) if not given.
        rules: What is masked; see `pemn.training.rules.plan`.

    Raises:
        ConfigError: If there is no such network, or it cannot be masked by these rules.
    """
    with torch.device("meta"):
        module = build(architecture, contract.shape, len(contract.class_names))
    return describe(module, architecture, contract, seed, strategy, init, rules)


def describe(
    module: nn.Module,
    name: str,
    contract: InputContract,
    seed: int,
    strategy: Strategy,
    init: WeightInit | None = None,
    rules: Rules | None = None,
) -> ModelSpec:
    """Returns the description of any module.

    Args:
        module: As it is built, before it is run or masked; may be on the meta device.
        name: What to call it; see `model_spec` for the rest.
        contract: What it is fed, and its classes.
        seed: 64-bit seed of its weights.
        strategy: How a prototype fills its layers.
        init: How the weights are drawn.
        rules: What is masked.

    Raises:
        ConfigError: If it cannot be masked by these rules.
    """
    init = init or WeightInit()
    found = plan(module, rules)
    streams = [source.stream for source in sources(strategy, [tensor.shape for tensor in found.masked])]
    layers = []
    for index, tensor in enumerate(found.masked):
        fan_in = tensor.fan_in if init.rescale else found.masked[streams[index]].fan_in
        layers.append(Layer(tensor.name, tensor.shape, to_float32(init.gain / math.sqrt(fan_in))))
    structure = structure_hash(module)
    return ModelSpec(
        name, contract, tuple(layers), seed, strategy, structure, init.distribution, found.floats
    )


def check_model(spec: ModelSpec, allowed: str | None = None) -> None:
    """Checks that this machine would build the network that a spec describes.

    A name with a colon imports and runs code that is installed here, so the other end alone must not choose it.

    Args:
        spec: The network, as the other end describes it.
        allowed: The one such name that this machine's user has asked for.

    Raises:
        WrongSpec: If it is not allowed, not known, or has other tensors or another structure here.
    """
    if ":" in spec.architecture and spec.architecture != allowed:
        wanted = allowed or "the same name as the client's own --model"
        raise WrongSpec("network from installed code", got=spec.architecture, wanted=wanted)
    try:
        with torch.device("meta"):
            module = build(spec.architecture, spec.input.shape, spec.num_classes)
    except ConfigError as error:
        raise WrongSpec(f"network of the spec: {error}") from error
    here = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }
    for name in sorted(here.keys() | spec.shapes.keys()):
        if here.get(name) != spec.shapes.get(name):
            raise WrongSpec(
                "tensor of the network", got=spec.shapes.get(name), wanted=here.get(name), where=name
            )
    structure = structure_hash(module)
    if structure != spec.structure:
        raise WrongSpec(
            "structure of the network: the same tensors, but other steps between them",
            got=spec.structure.hex(),
            wanted=structure.hex(),
            where=spec.architecture,
        )
