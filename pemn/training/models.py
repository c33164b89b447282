"""The networks that PEMN trains, by name: plain torch modules whose every weight can be masked.

Normalisation has neither affine terms nor running statistics, and no layer has a bias: those would be floats that a
mask cannot express.

    mlp-W1-W2-...    flatten; per width a linear layer, layer norm and ReLU; a linear head
    cnn-C1-C2-...    per width a 3x3 convolution, group norm and ReLU, stride 2 in the first two and 1 after;
                     mean over the image; a linear head
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict

import torch
from torch import nn

from pemn.errors import ConfigError, WrongSpec
from pemn.prototype import Strategy
from pemn.spec import InputContract, Layer, ModelSpec, to_float32

_NAME = re.compile(r"(mlp|cnn)((?:-[1-9][0-9]{0,4})+)")
_NUM_GROUPS = 8
_NUM_STRIDED = 2


class GlobalMean(nn.Module):
    """Mean over the image: batch x channels x height x width -> batch x channels."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Returns the mean of every channel."""
        return image.mean(dim=(-2, -1))


def build(architecture: str, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns a network with torch's own initial weights.

    Args:
        architecture: `mlp-W1-W2-...` or `cnn-C1-C2-...`, each width 2 .. 99999.
        input_shape: (channels, height, width) of one image.
        num_classes: Number of outputs.

    Raises:
        ConfigError: If there is no such network, or none for such images.
    """
    match = _NAME.fullmatch(architecture)
    widths = [int(text) for text in match[2].split("-")[1:]] if match else []
    if match is None or min(widths) < 2:  # one value a layer or channel is normalised away
        raise ConfigError(
            "unknown architecture",
            got=repr(architecture),
            wanted="mlp-W1-W2-... or cnn-C1-C2-... with widths 2 .. 99999, such as mlp-256-256 or cnn-64-128-128",
        )
    make = _mlp if match[1] == "mlp" else _cnn
    return nn.Sequential(make(widths, input_shape, num_classes))


def model_spec(architecture: str, contract: InputContract, seed: int, strategy: Strategy) -> ModelSpec:
    """Returns the description of a network from which any end can rebuild it.

    Every layer's scale is 2 / sqrt(inputs of one output), the signed constant, as float32.

    Args:
        architecture: See `build`.
        contract: What the network is fed, and its classes.
        seed: 64-bit seed of its weights.
        strategy: How a prototype fills its layers.

    Raises:
        ConfigError: If there is no such network.
    """
    with torch.device("meta"):
        module = build(architecture, contract.shape, len(contract.class_names))
    return ModelSpec(architecture, contract, masked_layers(module), seed, strategy)


def masked_layers(module: nn.Module) -> tuple[Layer, ...]:
    """Returns the layers of a module in `state_dict` order; all of its state must be maskable.

    Raises:
        ConfigError: If it has trained floats that no mask can express (biases, affine terms) or running statistics.
    """
    parameters = dict(module.named_parameters())
    layers, floats = [], []
    for name, tensor in module.state_dict().items():
        if name not in parameters or tensor.dim() < 2:
            floats.append(name)
        else:
            fan_in = math.prod(tensor.shape[1:])
            layers.append(Layer(name, tuple(tensor.shape), to_float32(2.0 / math.sqrt(fan_in))))
    if floats:
        raise ConfigError("network with floats that a mask cannot express", got=", ".join(floats))
    return tuple(layers)


def check_model(spec: ModelSpec) -> None:
    """Checks that this machine would build the network that a spec describes.

    Raises:
        WrongSpec: If it does not know the architecture or builds other layers.
    """
    try:
        here = model_spec(spec.architecture, spec.input, spec.seed, spec.strategy)
    except ConfigError as error:
        raise WrongSpec(f"network of the spec: {error}") from error
    if len(here.layers) != len(spec.layers):
        raise WrongSpec(
            "number of layers", got=len(spec.layers), wanted=len(here.layers), where=spec.architecture
        )
    for got, wanted in zip(spec.layers, here.layers, strict=True):
        if got != wanted:
            raise WrongSpec("layer of the spec", got=got, wanted=wanted, where=wanted.name)


def _mlp(
    widths: list[int], input_shape: tuple[int, int, int], num_classes: int
) -> OrderedDict[str, nn.Module]:
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    size = math.prod(input_shape)
    for i, width in enumerate(widths, 1):
        parts[f"linear{i}"] = nn.Linear(size, width, bias=False)
        parts[f"norm{i}"] = nn.LayerNorm(width, elementwise_affine=False)
        parts[f"relu{i}"] = nn.ReLU()
        size = width
    parts["head"] = nn.Linear(size, num_classes, bias=False)
    return parts


def _cnn(
    widths: list[int], input_shape: tuple[int, int, int], num_classes: int
) -> OrderedDict[str, nn.Module]:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels, height, width = input_shape
    for i, filters in enumerate(widths, 1):
        stride = 2 if i <= _NUM_STRIDED else 1
        height, width = -(-height // stride), -(-width // stride)
        groups = math.gcd(_NUM_GROUPS, filters)
        if filters // groups * height * width == 1:
            raise ConfigError("image too small for the network", got=input_shape, wanted="2 values a group")
        parts[f"conv{i}"] = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        parts[f"norm{i}"] = nn.GroupNorm(groups, filters, affine=False)
        parts[f"relu{i}"] = nn.ReLU()
        channels = filters
    parts["mean"] = GlobalMean()
    parts["head"] = nn.Linear(channels, num_classes, bias=False)
    return parts
