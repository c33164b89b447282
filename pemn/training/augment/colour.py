"""Changing values: brightness, contrast, saturation, sharpness, and the operations that are look-up tables.

All take and return whole numbers 0 .. 255 of images with 1 or 3 channels, and agree with Pillow's `ImageEnhance` and
`ImageOps` to the bit: what Pillow computes in float32 is float32 here, one rounding a step; what it computes in
integers or float64 is so here as well. `torchvision`'s tensor functions differ from Pillow by one level here and
there: its luma weights are (.2989, .587, .114), and it does not round the mean that contrast pulls towards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pemn.errors import ConfigError, LocalError

BRIGHTNESS, SATURATION, CONTRAST = range(3)


def to_bytes(images: Tensor) -> Tensor:
    """Returns images as uint8 0 .. 255; floats 0 .. 1 are rounded to the nearest.

    Args:
        images: uint8, or float in 0 .. 1, [B, 1 or 3, H, W].

    Raises:
        LocalError: If they are neither.
    """
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise LocalError(
            "images", got=f"{images.dtype} {list(images.shape)}", wanted="uint8 or float, [B, C, H, W]"
        )
    if images.shape[1] not in (1, 3):
        raise ConfigError("augmenting colours", got=f"{images.shape[1]} channels", wanted="1 or 3")
    if images.dtype == torch.uint8:
        return images
    return (images.float() * 255).round_().clamp_(0, 255).to(torch.uint8)


def from_bytes(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Undoes `to_bytes`: uint8, or 0 .. 1 in a floating dtype."""
    return images if dtype == torch.uint8 else (images.float() / 255).to(dtype)


def adjust_(pixels: Tensor, kinds: Tensor, factors: Tensor) -> Tensor:
    """Scales the brightness, saturation or contrast of each image, in place.

    Args:
        pixels: float32 [B, C, H, W].
        kinds: int [B], `BRIGHTNESS`, `SATURATION` or `CONTRAST`.
        factors: float32 [B], >= 0; 1 changes nothing.
    """
    grey = luma(pixels)
    num_pixels = grey.shape[2] * grey.shape[3]
    # To the nearest, halves up, in integers. The sum of a row is exact in float32.
    mean = ((2 * grey.sum(3).long().sum((1, 2)) + num_pixels) // (2 * num_pixels)).to(pixels.dtype)
    # What a factor of 0 would give: black, the grey image or its mean. A product with 0 or 1 is exact.
    is_saturation, is_contrast = ((kinds == kind).to(pixels.dtype) for kind in (SATURATION, CONTRAST))
    degenerate = grey.mul_(is_saturation.view(-1, 1, 1, 1)).add_((mean * is_contrast).view(-1, 1, 1, 1))
    return blend_(pixels, degenerate, factors)


def sharpen_(pixels: Tensor, factors: Tensor) -> Tensor:
    """Scales the sharpness of each image, in place; see `adjust_`."""
    return blend_(pixels, smooth(pixels), factors)


def blend_(pixels: Tensor, degenerate: Tensor, factors: Tensor) -> Tensor:
    """Sets pixels to `degenerate + factor * (pixels - degenerate)`, cut to 0 .. 255 and rounded down.

    Args:
        pixels: float32 [B, C, H, W]: what a factor of 1 gives.
        degenerate: float32, broadcasts to `pixels`: what a factor of 0 gives.
        factors: float32 [B].
    """
    pixels.sub_(degenerate).mul_(factors.view(-1, 1, 1, 1)).add_(degenerate)
    return pixels.clamp_(0, 255).floor_()


def luma(pixels: Tensor) -> Tensor:
    """Returns the grey images, float32 [B, 1, H, W], by ITU-R 601 in 16-bit fixed point, to the nearest."""
    if pixels.shape[1] == 1:
        return pixels.clone()
    red, green, blue = (pixels[:, i : i + 1] for i in range(3))
    # Below 2^24 throughout: float32 is exact.
    weighted = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471)
    return weighted.add_(32768).mul_(2**-16).floor_()


def smooth(pixels: Tensor) -> Tensor:
    """Returns images under the 3x3 filter (1 1 1, 1 5 1, 1 1 1) / 13, to the nearest, with their edges unchanged."""
    smoothed = pixels.clone()
    if min(pixels.shape[-2:]) >= 3:
        rows = pixels[..., :-2, :] + pixels[..., 1:-1, :] + pixels[..., 2:, :]
        box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
        # A sum of integers over 13 is never nearer than 1/26 to a half, so how float32 rounds does not matter.
        box.add_(pixels[..., 1:-1, 1:-1], alpha=4).div_(13).add_(0.5).floor_()
        smoothed[..., 1:-1, 1:-1] = box
    return smoothed


def posterize(images: Tensor, bits: int) -> Tensor:
    """Returns uint8 images with the upper `bits` bits, 1 .. 8, of every value."""
    return images & (256 - (1 << (8 - bits)))


def solarize(images: Tensor, threshold: int) -> Tensor:
    """Returns uint8 images with every value v >= `threshold` turned into 255 - v."""
    return images ^ (images >= threshold).to(torch.uint8).mul_(255)


def autocontrast(images: Tensor) -> Tensor:
    """Returns uint8 images of which each channel is stretched to 0 .. 255; a channel of one value stays."""
    flat = images.flatten(2)
    lowest, highest = (v.to(torch.float64) for v in (flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)))
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    scale = levels[255] / (highest - lowest)  # `255 / tensor` is 255 times the reciprocal: rounded twice
    table = (levels * scale + -lowest * scale).clamp_(0, 255)
    return _look_up(torch.where(highest > lowest, table, levels).to(torch.uint8), images)


def equalize(images: Tensor) -> Tensor:
    """Returns uint8 images of which each channel has its histogram flattened.

    A channel of which fewer than 255 pixels lie below its highest value stays as it is.
    """
    index = images.flatten(2).long()
    histogram = torch.zeros(*index.shape[:2], 256, dtype=torch.int32, device=images.device)
    histogram.scatter_add_(2, index, torch.ones_like(index, dtype=torch.int32))
    below = histogram.cumsum(2) - histogram  # [B, C, 256], pixels of lower values
    step = below.gather(2, index.amax(2, keepdim=True)) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    levels = torch.arange(256, device=images.device)
    return _look_up(torch.where(step > 0, table, levels).to(torch.uint8), images)


def _look_up(table: Tensor, images: Tensor) -> Tensor:
    """Returns uint8 images with every value looked up in its channel's table, uint8 [B, C, 256]."""
    return table.gather(2, images.flatten(2).long()).view_as(images)
