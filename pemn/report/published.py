"""The points of the paper's figures, in percent of the test images.

They are the best epoch *on the test set*, of one run each, on all training images.

Source: PEMN (NeurIPS 2022), Figures 3 to 5: accuracies from the coordinates of its vector figures, percent saved from
its rule (`ModelSpec.paper_compression_ratio`), rounded as the paper does. Left out: CIFAR-100 with ConvMixer, Tiny
ImageNet and ImageNet subsets, which nothing here trains.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Published:
    """What the paper has of one network.

    Attributes:
        by_strategy: Accuracy by strategy.
        pruned: Accuracies of a kind of pruning at `RATIOS`.
        ratios: Percent saved by a strategy, by the paper's rule, where it is drawn.
    """

    by_strategy: dict[str, float]
    pruned: dict[str, tuple[float, ...]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)


RATIOS = (90.0, 92.0, 94.0, 96.0)
_STRATEGIES = ("dense", "full", "one-layer", "mp", "rp:0.1", "rp:0.01", "rp:0.001", "rp:0.0001", "rp:1e-05")


def _figure_3(*accuracies: float) -> dict[str, float]:
    return dict(zip(_STRATEGIES, accuracies, strict=True))


def _resnet(dense: float, mp: float, rp1: float, rp2: float) -> dict[str, float]:
    return {"dense": dense, "mp": mp, "rp:0.1": rp1, "rp:0.01": rp2}


_CONVMIXER_6 = {"rp:0.1": 95.376, "rp:0.01": 96.725, "rp:0.001": 96.860}
_CONVMIXER_8 = {"rp:0.1": 95.75, "rp:0.01": 96.76, "rp:0.001": 96.86}
_RESNET_32 = {"mp": 89.0, "rp:0.1": 96.1, "rp:0.01": 96.8}
_RESNET_56 = {"mp": 92.53, "rp:0.1": 96.44, "rp:0.01": 96.83}

PUBLISHED: dict[tuple[str, str], Published] = {
    ("convmixer-6-256", "cifar10"): Published(
        _figure_3(94.01, 89.43, 88.93, 88.98, 89.09, 88.96, 88.51, 85.36, 80.20),
        {"random": (84.23, 83.16, 81.06, 76.80), "magnitude": (84.42, 83.35, 80.94, 77.29)},
        _CONVMIXER_6,
    ),
    ("convmixer-6-512", "cifar10"): Published(
        _figure_3(94.64, 91.88, 92.14, 92.04, 92.24, 92.16, 92.03, 90.54, 87.53)
    ),
    ("convmixer-8-256", "cifar10"): Published(
        _figure_3(94.61, 90.50, 90.46, 90.65, 90.64, 90.72, 90.19, 87.73, 82.06),
        {"random": (86.89, 85.43, 83.42, 79.76), "magnitude": (86.42, 85.06, 83.68, 79.62)},
        _CONVMIXER_8,
    ),
    ("convmixer-8-512", "cifar10"): Published(
        _figure_3(95.48, 92.80, 92.73, 93.29, 92.99, 93.09, 92.95, 91.55, 87.25)
    ),
    ("vit-6-256", "cifar10"): Published(
        _figure_3(79.29, 76.48, 75.88, 76.62, 76.91, 76.26, 77.18, 64.39, 66.06)
    ),
    ("vit-6-512", "cifar10"): Published(
        _figure_3(82.97, 80.81, 81.16, 81.45, 81.84, 81.39, 80.99, 78.90, 79.07)
    ),
    ("vit-8-256", "cifar10"): Published(
        _figure_3(82.18, 79.30, 79.86, 79.61, 79.23, 79.81, 79.53, 73.54, 71.38)
    ),
    ("vit-8-512", "cifar10"): Published(
        _figure_3(85.11, 83.62, 83.91, 83.71, 83.71, 83.59, 83.68, 76.21, 79.21)
    ),
    ("resnet-32", "cifar10"): Published(
        _resnet(92.26, 86.29, 86.65, 86.41),
        {"random": (84.07, 83.44, 82.01, 79.36), "magnitude": (84.16, 83.47, 81.25, 79.00)},
        _RESNET_32,
    ),
    ("resnet-56", "cifar10"): Published(
        _resnet(92.93, 88.35, 88.12, 88.32),
        {"random": (86.76, 85.64, 84.80, 81.92), "magnitude": (86.95, 86.22, 84.33, 82.36)},
        _RESNET_56,
    ),
    ("resnet-32", "cifar100"): Published(
        _resnet(67.44, 51.91, 50.64, 52.34),
        {"random": (49.69, 47.37, 44.46, 39.72), "magnitude": (49.66, 47.31, 44.21, 39.73)},
        _RESNET_32,
    ),
    ("resnet-56", "cifar100"): Published(
        _resnet(68.53, 56.61, 56.56, 56.00),
        {"random": (55.52, 51.45, 49.64, 44.12), "magnitude": (54.36, 52.39, 49.99, 43.98)},
        _RESNET_56,
    ),
}
"""By network and data set."""


def nearest(model: str, dataset: str) -> str | None:
    """Returns the network whose points are drawn beside: the same, or the first of its family."""
    if (model, dataset) in PUBLISHED:
        return model
    family = model.split("-", 1)[0]
    return next(
        (name for name, data in PUBLISHED if data == dataset and name.split("-", 1)[0] == family), None
    )
