"""Augmentations by name: those of the paper's recipes, and two plain ones. All end with normalised images."""

from __future__ import annotations

from collections.abc import Callable

from pemn.errors import ConfigError
from pemn.training.augment.compose import Augmentation, compose
from pemn.training.augment.rand_augment import RandAugment
from pemn.training.augment.transforms import (
    ColorJitter,
    HorizontalFlip,
    Normalise,
    RandomCrop,
    RandomErasing,
)

Values = tuple[float, ...]
"""One number a channel, in units of the full range 0 .. 1."""


def paper_convmixer(mean: Values, std: Values) -> Augmentation:
    """Returns what the official code trains ConvMixer with, in its order.

    Its first step, `RandomResizedCrop` with scale (1, 1) and ratio (1, 1), returns a square image as it is and is left
    out.
    """
    return compose(
        HorizontalFlip(),
        RandAugment(2, 12),
        ColorJitter(0.2, 0.2, 0.2),
        Normalise(mean, std),
        RandomErasing(0.2),
    )


def paper_vit(mean: Values, std: Values) -> Augmentation:
    """Returns what kentaroy47's `vision-transformers-cifar10` trains ViT with, in its order.

    That its recipe is the paper's is inferred from the learning rate, the batch size and the epochs. It brings a
    RandAugment of its own, with other operations (Invert, Cutout) and other ranges; this is the one of
    `paper_convmixer`.
    """
    return compose(RandAugment(2, 14), RandomCrop(4), HorizontalFlip(), Normalise(mean, std))


def light(mean: Values, std: Values) -> Augmentation:
    """Returns crop and flip, the usual for residual networks on CIFAR (He et al., 2015, section 4.2)."""
    return compose(RandomCrop(4), HorizontalFlip(), Normalise(mean, std))


def none(mean: Values, std: Values) -> Augmentation:
    """Returns normalisation alone."""
    return compose(Normalise(mean, std))


PRESETS: dict[str, Callable[[Values, Values], Augmentation]] = {
    "paper-convmixer": paper_convmixer,
    "paper-vit": paper_vit,
    "light": light,
    "none": none,
}


def preset(name: str, mean: Values, std: Values) -> Augmentation:
    """Returns an augmentation by its name in `PRESETS`.

    Args:
        name: The preset.
        mean: What is subtracted from each channel.
        std: What each channel is divided by then.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError("augmentation", got=name, wanted=", ".join(PRESETS))
    return PRESETS[name](mean, std)
