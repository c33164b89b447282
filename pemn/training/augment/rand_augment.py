"""RandAugment (Cubuk et al., 2020, arXiv:1909.13719) on a whole batch."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pemn.errors import LocalError
from pemn.training.augment import colour, geometry
from pemn.training.augment.colour import from_bytes, to_bytes

_GROUPS = (
    ("Identity",),
    ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    ("Brightness", "Color", "Contrast"),
    ("Sharpness",),
    ("Posterize",),
    ("Solarize",),
    ("AutoContrast",),
    ("Equalize",),
)
"""The operations, those together that are computed together."""

OPERATIONS = tuple(itertools.chain(*_GROUPS))
"""The operations by number, in torchvision's order."""

HIGHEST_MAGNITUDE = 30


@dataclass(frozen=True)
class RandAugment:
    """Random operations of one magnitude, each image its own, as torchvision's `RandAugment` does them to PIL images.

    Nearest neighbour, zeros from outside. Every operation up to Sharpness draws a sign: a direction, or whether a
    factor is above or below 1. A batch of floats is rounded to 8 bits first.

    On CUDA a call waits for the device once, to learn which operations were drawn.

    Attributes:
        num_operations: How many an image goes through, drawn with replacement.
        magnitude: 0 .. 30, of a greatest slope of 0.3, shift of 150/331 of the side (in whole pixels), 30 degrees,
            factor 1 +- 0.9, 4 bits fewer, all values inverted. At 0 only AutoContrast and Equalize change an image,
            and Solarize the value 255.
    """

    num_operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.num_operations < 0 or not 0 <= self.magnitude <= HIGHEST_MAGNITUDE:
            raise LocalError("RandAugment", got=self, wanted=f"a magnitude of 0 .. {HIGHEST_MAGNITUDE}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the batch, augmented; see `pemn.training.augment.Augmentation`."""
        return self.apply(images, *self.draw(images, generator))

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws what each image goes through.

        Returns:
            int64 [num_operations, B], numbers in `OPERATIONS`; bool [num_operations, B], negative signs.
        """
        shape, device = (self.num_operations, len(images)), images.device
        operations = torch.randint(len(OPERATIONS), shape, generator=generator, device=device)
        return operations, torch.rand(shape, generator=generator, device=device) < 0.5

    def apply(self, images: Tensor, operations: Tensor, negative: Tensor) -> Tensor:
        """Returns the batch after what `draw` drew."""
        augmented = to_bytes(images)
        for chosen, negative_now, counts in zip(operations, negative, _count(operations), strict=True):
            # Sorted by operation, so that each group is one slice.
            order = chosen.argsort(stable=True)
            parts = (v.index_select(0, order).split(counts) for v in (augmented, chosen, negative_now))
            done = [self._operate(*part) for part in zip(_GROUPS, *parts, strict=True)]
            augmented = torch.cat(done).index_select(0, order.argsort())
        return from_bytes(augmented, images.dtype)

    def _operate(self, group: tuple[str, ...], images: Tensor, chosen: Tensor, negative: Tensor) -> Tensor:
        """Returns uint8 images after one operation each, all of one group."""
        offset = chosen - OPERATIONS.index(group[0])
        match group[0]:
            case "Identity":
                return images
            case "ShearX":
                height, width = images.shape[-2:]
                maps = _affine_maps(self.magnitude, height, width, images.device)
                return geometry.affine(images, maps[negative.long(), offset])
            case "Brightness":
                return colour.adjust_(images.float(), offset, self._factors(negative)).to(torch.uint8)
            case "Sharpness":
                return colour.sharpen_(images.float(), self._factors(negative)).to(torch.uint8)
            case "Posterize":
                return colour.posterize(images, 8 - round(4 * self.magnitude / HIGHEST_MAGNITUDE))
            case "Solarize":
                # A level is at least a threshold when it is at least the next whole number.
                return colour.solarize(images, math.ceil(_share(self.magnitude, 255, 0)))
            case "AutoContrast":
                return colour.autocontrast(images)
            case _:
                return colour.equalize(images)

    def _factors(self, negative: Tensor) -> Tensor:
        change = _share(self.magnitude, 0, 0.9)
        return torch.where(negative, 1 - change, 1 + change)


def _count(operations: Tensor) -> list[list[int]]:
    """Returns how many images of each round drew each group of operations; the call that waits for the device."""
    counts = [torch.bincount(chosen, minlength=len(OPERATIONS)).tolist() for chosen in operations.cpu()]
    bounds = [0, *itertools.accumulate(map(len, _GROUPS))]
    return [[sum(row[begin:end]) for begin, end in itertools.pairwise(bounds)] for row in counts]


def _share(magnitude: int, weakest: float, strongest: float) -> float:
    """Returns a magnitude between two ends, rounded to float32 as in torchvision's table."""
    return torch.linspace(weakest, strongest, HIGHEST_MAGNITUDE + 1)[magnitude].item()


@functools.lru_cache
def _affine_maps(magnitude: int, height: int, width: int, device: torch.device) -> Tensor:
    """Returns the maps of ShearX .. Rotate, int32 [positive and negative, 5, 6]."""
    slope, angle_deg = _share(magnitude, 0, 0.3), _share(magnitude, 0, 30)
    x_px, y_px = (int(_share(magnitude, 0, 150 / 331 * side)) for side in (width, height))
    maps = [
        [
            geometry.shear_x(sign * slope),
            geometry.shear_y(sign * slope),
            geometry.translate(sign * x_px, 0),
            geometry.translate(0, sign * y_px),
            geometry.rotate(sign * angle_deg, height, width),
        ]
        for sign in (1, -1)
    ]
    fixed = [[geometry.fixed_point(coefficients) for coefficients in row] for row in maps]
    return torch.tensor(fixed, dtype=torch.int32, device=device)
