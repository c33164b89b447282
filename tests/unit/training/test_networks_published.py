"""The networks have the sizes, prototypes and compression ratios that are published for them.

Sources: PEMN (NeurIPS 2022), its figures 4 and 5 and its released ConvMixer; He et al. (CVPR 2016), table 6; FedPM's
released networks. The compression ratio is the one that the paper's figures plot: 100 (1 - 1/32 - unique / p), in per
cent, with p the weights of convolutions and linear layers.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pemn.prototype import Strategy, unique_values
from pemn.training.networks import build

CIFAR = (3, 32, 32)


def network(architecture: str, shape: tuple[int, int, int] = CIFAR, num_classes: int = 10) -> nn.Module:
    with torch.device("meta"):
        return build(architecture, shape, num_classes)


def weight_shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(part.weight.shape) for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def num_weights(module: nn.Module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear))


def unique(strategy: str, module: nn.Module) -> int:
    return unique_values(Strategy.parse(strategy), weight_shapes(module))


def compression_ratio(strategy: str, module: nn.Module) -> float:
    return 100 * (1 - 1 / 32 - unique(strategy, module) / num_weights(module))


@pytest.mark.parametrize(
    ("architecture", "weights", "norm_floats", "one_layer", "mp", "rp"),
    [
        ("convmixer-6-256", 437_248, 6_656, 77_568, 65_536, (6554, 656, 66, 7, 1)),
        ("convmixer-8-256", 581_120, 8_704, 77_568, 65_536, (6554, 656, 66, 7, 1)),
        ("convmixer-6-512", 1_660_928, 13_312, 286_208, 262_144, (26215, 2622, 263, 27, 3)),
        ("convmixer-8-512", 2_210_816, 17_408, 286_208, 262_144, (26215, 2622, 263, 27, 3)),
    ],
)
def test_convmixers(
    architecture: str, weights: int, norm_floats: int, one_layer: int, mp: int, rp: tuple[int, ...]
) -> None:
    module = network(architecture)
    assert num_weights(module) == weights == unique("full", module)
    assert sum(p.numel() for p in module.parameters()) == weights + norm_floats
    assert unique("one-layer", module) == one_layer
    assert unique("mp", module) == mp
    assert tuple(unique(f"rp:1e-{i}", module) for i in range(1, 6)) == rp


@pytest.mark.parametrize(
    ("architecture", "num_classes", "strategy", "digits", "published"),
    [
        ("resnet-32", 10, "mp", 2, 88.89),
        ("resnet-32", 10, "rp:1e-1", 2, 96.08),
        ("resnet-32", 10, "rp:1e-2", 2, 96.80),
        ("resnet-32", 100, "mp", 2, 88.99),
        ("resnet-32", 100, "rp:1e-1", 2, 96.09),
        ("resnet-32", 100, "rp:1e-2", 2, 96.80),
        ("resnet-56", 10, "mp", 2, 92.53),
        ("resnet-56", 10, "rp:1e-1", 2, 96.44),
        ("resnet-56", 10, "rp:1e-2", 2, 96.83),
        ("convmixer-6-256", 10, "one-layer", 2, 79.13),
        ("convmixer-6-256", 10, "mp", 2, 81.89),
        ("convmixer-6-256", 10, "rp:1e-1", 3, 95.376),
        ("convmixer-6-256", 10, "rp:1e-2", 3, 96.725),
        ("convmixer-6-256", 10, "rp:1e-3", 3, 96.860),
        ("convmixer-8-256", 10, "one-layer", 2, 83.53),
        ("convmixer-8-256", 10, "mp", 2, 85.60),
        ("convmixer-8-256", 10, "rp:1e-1", 3, 95.747),
        ("convmixer-8-256", 10, "rp:1e-2", 3, 96.762),
        ("convmixer-8-256", 10, "rp:1e-3", 3, 96.864),
    ],
)
def test_compression_ratios_to_the_digits_given(
    architecture: str, num_classes: int, strategy: str, digits: int, published: float
) -> None:
    ratio = compression_ratio(strategy, network(architecture, num_classes=num_classes))
    assert round(ratio, digits) == published


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [
        ("resnet-20", 0.27),
        ("resnet-32", 0.46),
        ("resnet-44", 0.66),
        ("resnet-56", 0.85),
        ("resnet-110", 1.7),
    ],
)
def test_resnets_have_the_published_parameters_and_as_many_layers_as_their_name_says(
    architecture: str, millions: float
) -> None:
    module = network(architecture)
    total = sum(p.numel() for p in module.parameters())
    assert round(total / 1e6, 1 if millions == 1.7 else 2) == millions
    assert len(weight_shapes(module)) == int(architecture.split("-")[1])


@pytest.mark.parametrize(
    ("architecture", "mask_bytes", "norm_bytes"),
    [("resnet-32", 57_734, 18_176), ("resnet-56", 106_118, 32_512)],
)
def test_resnets_payloads(architecture: str, mask_bytes: int, norm_bytes: int) -> None:
    """One bit a weight, and four float32 a channel of batch norm: affine terms, mean and variance."""
    module = network(architecture)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert num_weights(module) / 8 == mask_bytes
    assert sum(16 * part.num_features for part in norms) == norm_bytes


@pytest.mark.parametrize(("width", "rp"), [(256, 4), (512, 8)])
@pytest.mark.parametrize("depth", [6, 8])
def test_vits(depth: int, width: int, rp: int) -> None:
    """With 8 heads of 64 the projection to queries, keys and values is the largest layer."""
    module = network(f"vit-{depth}-{width}")
    block = width * 3 * 512 + 512 * width + 2 * width * 512
    assert num_weights(module) == 3 * 4 * 4 * width + depth * block + 10 * width
    assert unique("mp", module) == 1536 * width
    assert unique("rp:1e-5", module) == rp
    floats = sum(p.numel() for p in module.parameters()) - num_weights(module)
    assert floats == (1 + 65) * width + 2 * width * (2 * depth + 1)


@pytest.mark.parametrize(
    ("architecture", "shape", "with_biases"),
    [("conv-4", (1, 28, 28), 1_933_258), ("conv-6", CIFAR, 2_262_602)],
)
def test_convs_are_fedpms_without_the_biases(
    architecture: str, shape: tuple[int, int, int], with_biases: int
) -> None:
    shapes = weight_shapes(network(architecture, shape))
    assert num_weights(network(architecture, shape)) == with_biases - sum(shape[0] for shape in shapes)


def test_the_longer_convs_go_on_as_vgg_does() -> None:
    convolutions = [shape[0] for shape in weight_shapes(network("conv-10")) if len(shape) == 4]
    assert convolutions == [64, 64, 128, 128, 256, 256, 512, 512, 512, 512]
    assert weight_shapes(network("conv-8"))[8:] == [(256, 512 * 2 * 2), (256, 256), (10, 256)]
    assert weight_shapes(network("conv-10"))[10:] == [(256, 512), (256, 256), (10, 256)]
