"""From a network to its description, and the check that both ends build the same one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from pemn.distribution import Distribution
from pemn.errors import ConfigError, MalformedFrame, WrongSpec
from pemn.generator import Purpose, child
from pemn.prototype import Strategy, sources
from pemn.spec import InputContract, Layer, ModelSpec, to_float32
from pemn.training.networks import build
from pemn.training.rules import Rules, floating_shapes, plan
from pemn.training.structure import structure_hash
from pemn.wire.limits import MAX_FLOATS, MAX_PARAMS, MAX_TERMS
from pemn.wire.model import check_bounds


@dataclass(frozen=True)
class WeightInit:
    """How the frozen weights are drawn: a value of mean 0 and variance 1, times gain / sqrt(fan_in).

    Attributes:
        distribution: What the values look like.
        gain: sqrt(2) is Kaiming's for ReLU.
        rescale: Whether fan_in is each layer's own. If not, it is that of the layer whose values are used, as the
            paper has it: then a layer that takes over the values of a wider one has small weights, which a norm after
            it makes good.
        terms: If above 1, a weight of the first layer is the sum of so many masked values and one of the last layer of
            twice as many, each smaller by sqrt(terms), where that layer has at most 1/64 of the weights: a bit a weight
            is least enough there, and more bits cost least.
    """

    distribution: Distribution = Distribution.SIGNED
    gain: float = 2.0
    rescale: bool = True
    terms: int = 1

    def __post_init__(self) -> None:
        """Checks the gain and the terms.

        Raises:
            ConfigError: If a number is out of bounds.
        """
        if not 0 < self.gain < 1e6:
            raise ConfigError("gain of the weights", got=self.gain, wanted="a number above 0, below 1e6")
        if not 1 <= self.terms <= MAX_TERMS // 2:
            raise ConfigError("terms of a weight", got=self.terms, wanted=f"1 .. {MAX_TERMS // 2}")


_SMALL = 64
"""A layer with at most this part of the weights is a small one."""

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
    module = _blueprint(architecture, contract.shape, len(contract.class_names))
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
        ConfigError: If it cannot be masked by these rules, or is larger than a file can hold.
    """
    init = init or WeightInit()
    found = plan(module, rules)
    terms = _terms([tensor.size for tensor in found.masked], init.terms)
    shapes = [(count, *tensor.shape) for count, tensor in zip(terms, found.masked, strict=True)]
    streams = [source.stream for source in sources(strategy, shapes)]
    layers = []
    for tensor, count, stream in zip(found.masked, terms, streams, strict=True):
        fan_in = tensor.fan_in if init.rescale else found.masked[stream].fan_in
        scale = to_float32(init.gain / math.sqrt(fan_in * (init.terms if count > 1 else 1)))
        layers.append(Layer(tensor.name, tensor.shape, scale, count))
    structure = structure_hash(module)
    spec = ModelSpec(
        name, contract, tuple(layers), seed, strategy, structure, init.distribution, found.floats
    )
    try:
        check_bounds(spec)
    except MalformedFrame as error:
        raise ConfigError(f"network that no file can hold: {error}", where=name) from error
    return spec


def _terms(sizes: list[int], terms: int) -> list[int]:
    """Returns how many values a weight of each layer is the sum of; see `WeightInit`."""
    counts = [1] * len(sizes)
    for index, count in ((0, terms), (-1, 2 * terms)):
        if terms > 1 and sizes[index] * _SMALL <= sum(sizes):
            counts[index] = count
    return counts


def build_seeded(architecture: str, contract: InputContract, seed: int) -> nn.Module:
    """Returns a network with the initial weights and floats that a seed gives, by torch's own rules for them.

    Args:
        architecture: See `pemn.training.networks.build`.
        contract: What it is fed, and its classes.
        seed: 64-bit seed.

    Raises:
        ConfigError: If there is no such network, it is too large, or does not give logits.
    """
    if ":" not in architecture:  # installed code may look at what it computes
        with torch.device("meta"):
            _check_size(build(architecture, contract.shape, len(contract.class_names)), architecture)
    torch.manual_seed(child(seed, Purpose.SCORES) >> 1)
    module = build(architecture, contract.shape, len(contract.class_names))
    _check_logits(module, architecture, contract)
    return module


def _check_size(module: nn.Module, architecture: str) -> None:
    size, most = sum(tensor.numel() for tensor in module.state_dict().values()), MAX_PARAMS + MAX_FLOATS
    if size > most:
        raise ConfigError("numbers of a network", got=size, wanted=f"at most {most}", where=architecture)


@torch.no_grad()
def _check_logits(module: nn.Module, architecture: str, contract: InputContract) -> None:
    """Checks what a network gives for two images, before anybody trains it for hours."""
    wanted = (2, len(contract.class_names))
    was_training, state = module.training, torch.get_rng_state()
    try:
        logits = module.eval()(torch.zeros(2, *contract.shape))
    except Exception as error:  # whatever a user's own code raises
        what = f"network cannot be run on images of {contract.shape}"
        raise ConfigError(what, got=f"{type(error).__name__}: {error}", where=architecture) from error
    finally:
        module.train(was_training)
        torch.set_rng_state(state)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError("logits of the network for two images", got=got, wanted=wanted, where=architecture)


def _blueprint(architecture: str, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns a network to look at; installed code may compute with its weights while it builds, which takes memory."""
    with torch.device("cpu" if ":" in architecture else "meta"):
        return build(architecture, input_shape, num_classes)


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
        module = _blueprint(spec.architecture, spec.input.shape, spec.num_classes)
    except ConfigError as error:
        raise WrongSpec(f"network of the spec: {error}") from error
    here = floating_shapes(module)
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
