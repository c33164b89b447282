"""Moving pixels: every image of a batch through its own nearest-neighbour map, and zeros from outside."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the pixel at (x, y) is taken from (a x + b y + c, d x + e y + f), in pixels, y downwards."""


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Returns images made of other pixels of themselves.

    Args:
        images: [B, C, H, W], any dtype.
        rows: int [B, H or 1, W or 1], the row that each pixel is taken from; 0 is taken from outside the image.
        columns: The same for the column.
    """
    height, width = images.shape[-2:]
    # One frame of zeros, on which every coordinate outside the image lands.
    framed = pad(images, (1, 1, 1, 1)).flatten(2)
    index = (rows.clamp(-1, height) + 1) * (width + 2) + (columns.clamp(-1, width) + 1)
    index = index.flatten(1).long().unsqueeze(1)  # [B, 1, H * W]
    return framed.gather(2, index.expand(-1, images.shape[1], -1)).view_as(images)


def affine(images: Tensor, fixed: Tensor) -> Tensor:
    """Returns each image under its own affine map, as Pillow's `Image.transform(AFFINE, NEAREST)` does, to the bit.

    Args:
        images: [B, C, H, W], any dtype, H and W below 16384.
        fixed: int32 [B, 6], as `fixed_point` makes it.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, dtype=torch.int32, device=images.device)
    y = torch.arange(height, dtype=torch.int32, device=images.device)[:, None]
    a, b, c, d, e, f = fixed.view(-1, 6, 1, 1).unbind(1)
    return resample(images, rows=(d * x + (e * y + f)) >> 16, columns=(a * x + (b * y + c)) >> 16)


def fixed_point(coefficients: Affine) -> list[int]:
    """Returns an affine map in Pillow's 16.16 fixed point, from the centre of the first pixel on."""
    a, b, c, d, e, f = coefficients
    return [math.floor(v * 65536 + 0.5) for v in (a, b, c + (a + b) / 2, d, e, f + (d + e) / 2)]


def shear_x(slope: float) -> Affine:
    """Returns the map that shifts each row by `slope` times its distance from the top."""
    return (1, slope, 0, 0, 1, 0)


def shear_y(slope: float) -> Affine:
    """Returns the map that shifts each column by `slope` times its distance from the left."""
    return (1, 0, 0, slope, 1, 0)


def translate(x_px: float, y_px: float) -> Affine:
    """Returns the map that moves an image right and down."""
    return (1, 0, -x_px, 0, 1, -y_px)


def rotate(angle_deg: float, height: int, width: int) -> Affine:
    """Returns the map that turns an image anticlockwise about its centre."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    x, y = width / 2, height / 2
    return (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)
