"""Crop, flip, colour jitter, erasing and normalisation, each image of a batch with its own parameters."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pemn.errors import LocalError
from pemn.training.augment import colour
from pemn.training.augment.colour import from_bytes, to_bytes
from pemn.training.augment.geometry import resample

_NUM_ATTEMPTS = 10


@dataclass(frozen=True)
class RandomCrop:
    """Pads each image with zeros on every side and crops it to its size again, at a random place.

    Attributes:
        padding: Pixels, >= 0.
    """

    padding: int

    def __post_init__(self) -> None:
        """Checks the range."""
        if self.padding < 0:
            raise LocalError("crop", got=f"padding {self.padding}", wanted="0 or more pixels")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the batch, augmented; see `pemn.training.augment.Augmentation`."""
        return self.apply(images, self.draw(images, generator))

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draws the crops' corners, int64 [2, B]: top and left in the padded image, 0 .. 2 * padding."""
        shape = (2, len(images))
        return torch.randint(2 * self.padding + 1, shape, generator=generator, device=images.device)

    def apply(self, images: Tensor, corners: Tensor) -> Tensor:
        """Returns the batch after what `draw` drew."""
        top, left = (corners - self.padding).view(2, -1, 1, 1)
        height, width = images.shape[-2:]
        rows = top + torch.arange(height, device=images.device)[:, None]
        return resample(images, rows, left + torch.arange(width, device=images.device))


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors an image left to right.

    Attributes:
        p: Probability, 0 .. 1.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        """Checks the range."""
        _check_probability(self.p)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the batch, augmented; see `pemn.training.augment.Augmentation`."""
        return self.apply(images, self.draw(images, generator))

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draws which images are mirrored, bool [B]."""
        return torch.rand(len(images), generator=generator, device=images.device) < self.p

    def apply(self, images: Tensor, mirrored: Tensor) -> Tensor:
        """Returns the batch after what `draw` drew."""
        width = images.shape[-1]
        columns = torch.arange(width, device=images.device)
        # x -> W - 1 - x for those: a gather, because picking them out would wait for the device.
        columns = columns + mirrored[:, None] * (width - 1 - 2 * columns)
        return images.gather(3, columns[:, None, None].expand_as(images))


@dataclass(frozen=True)
class ColorJitter:
    """Scales brightness, contrast and saturation by random factors, in random order, as torchvision does to PIL images.

    A batch of floats is rounded to 8 bits first.

    Attributes:
        brightness: Factors are uniform in 1 -+ this, and not below 0.
        contrast: The same.
        saturation: The same; nothing changes in grey images.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if min(self.brightness, self.contrast, self.saturation) < 0:
            raise LocalError("colour jitter", got=self, wanted="0 or more")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the batch, augmented; see `pemn.training.augment.Augmentation`."""
        return self.apply(images, *self.draw(images, generator))

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws what each image goes through.

        Returns:
            int64 [3, B], a permutation of `colour.BRIGHTNESS`, `SATURATION`, `CONTRAST`; float32 [3, B], the factor
            of each in that order.
        """
        shape, device = (3, len(images)), images.device
        order = torch.rand(shape, generator=generator, device=device).argsort(0)
        spreads = {
            colour.BRIGHTNESS: self.brightness,
            colour.SATURATION: self.saturation,
            colour.CONTRAST: self.contrast,
        }
        factors = torch.empty(shape, device=device)
        for kind, spread in spreads.items():
            factors[kind].uniform_(max(0.0, 1 - spread), 1 + spread, generator=generator)
        return order, factors.gather(0, order)

    def apply(self, images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
        """Returns the batch after what `draw` drew."""
        pixels = to_bytes(images).float()
        for k in range(len(order)):
            colour.adjust_(pixels, order[k], factors[k])
        return from_bytes(pixels.to(torch.uint8), images.dtype)


@dataclass(frozen=True)
class Normalise:
    """Turns 8-bit values into `(value / 255 - mean) / std`, float32, with the roundings of `pemn.spec.InputContract`.

    Floats 0 .. 1 become `(value - mean) / std` and keep their dtype.

    Attributes:
        mean: Per channel, in units of the full range 0 .. 1.
        std: Per channel, > 0, same units.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the batch, normalised; draws nothing."""
        if not images.shape[1] == len(self.mean) == len(self.std):
            raise LocalError("normalise", got=f"{images.shape[1]} channels", wanted=f"one each of {self}")
        # A copy, then in place: fresh memory costs more than the arithmetic.
        values = images.float() if images.dtype == torch.uint8 else images.clone()
        full, mean, std = (_column(v, values.dtype, values.device) for v in ((255.0,), self.mean, self.std))
        if images.dtype == torch.uint8:
            values.div_(full)
        return values.sub_(mean).div_(std)


@dataclass(frozen=True)
class RandomErasing:
    """Sets a random rectangle to 0 (Zhong et al., 2017, arXiv:1708.04896), drawn as torchvision draws it.

    A rectangle that does not fit is drawn again, ten times at most; then the image stays as it is.

    Attributes:
        p: Probability, 0 .. 1.
        scale: (lowest, highest) share of the image's area, uniform; 0 .. 1.
        ratio: (lowest, highest) ratio of height to width, uniform in its logarithm; > 0.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_probability(self.p)
        if not (0 <= self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1]):
            raise LocalError("erasing", got=self, wanted="(lowest, highest), scale in 0 .. 1, ratio > 0")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the batch, augmented; see `pemn.training.augment.Augmentation`."""
        return self.apply(images, self.draw(images, generator))

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draws the rectangles, float32 [4, B]: top, left, height and width in pixels; 0 x 0 for none."""
        num_images, _, height, width = images.shape
        shape, device = (_NUM_ATTEMPTS, num_images), images.device
        erased = torch.rand(num_images, generator=generator, device=device) < self.p
        area = torch.empty(shape, device=device).uniform_(*self.scale, generator=generator) * (height * width)
        log_ratio = torch.empty(shape, device=device)
        log_ratio.uniform_(math.log(self.ratio[0]), math.log(self.ratio[1]), generator=generator)
        sides = torch.stack((area * log_ratio.exp(), area / log_ratio.exp())).sqrt_().round_()
        fits = (sides[0] < height) & (sides[1] < width)
        first = fits.int().argmax(0)  # the first that fits; 0 where none does
        sides = sides[:, first, torch.arange(num_images, device=device)] * (erased & fits.any(0))
        room = torch.stack((height - sides[0], width - sides[1])) + 1
        corners = (torch.rand(2, num_images, generator=generator, device=device) * room).floor_()
        return torch.cat((corners, sides))

    def apply(self, images: Tensor, rectangles: Tensor) -> Tensor:
        """Returns the batch after what `draw` drew."""
        height, width = images.shape[-2:]
        top, left, tall, wide = rectangles.view(4, -1, 1, 1, 1)
        rows = torch.arange(height, device=images.device)[:, None]
        columns = torch.arange(width, device=images.device)
        # A product, because `masked_fill` is several times slower on a CPU when it has to spread its mask.
        outside = ((rows < top) | (rows >= top + tall)) | ((columns < left) | (columns >= left + wide))
        return images.mul(outside.to(images.dtype))


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise LocalError("probability", got=p, wanted="0 .. 1")


@functools.lru_cache
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns numbers as [C, 1, 1]; kept, because copying them to CUDA waits for the device."""
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
