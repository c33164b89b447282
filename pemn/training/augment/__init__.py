"""Augmentation of whole batches on the device that trains, from one generator.

Its state and the batch decide the result, so a run that is resumed with that state goes on bit for bit. Operations on
8-bit values agree with Pillow to the bit, which the paper's recipes were run with.

    compose.py       what an augmentation is, and several after each other
    geometry.py      moving pixels
    colour.py        changing values
    rand_augment.py  RandAugment
    transforms.py    crop, flip, colour jitter, normalisation, erasing
    presets.py       by name, for the recipes
"""

from pemn.training.augment.compose import Augmentation, compose
from pemn.training.augment.presets import PRESETS, light, none, paper_convmixer, paper_vit, preset
from pemn.training.augment.rand_augment import RandAugment
from pemn.training.augment.transforms import (
    ColorJitter,
    HorizontalFlip,
    Normalise,
    RandomCrop,
    RandomErasing,
)

__all__ = [
    "Augmentation",
    "compose",
    "RandAugment",
    "RandomCrop",
    "HorizontalFlip",
    "ColorJitter",
    "RandomErasing",
    "Normalise",
    "PRESETS",
    "preset",
    "paper_convmixer",
    "paper_vit",
    "light",
    "none",
]
