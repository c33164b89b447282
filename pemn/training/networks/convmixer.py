"""`convmixer-D-W`: D blocks of width W that mix a grid of patches, first over places, then over channels.

Patches of 2 pixels, kernels of 5, GELU, batch norm; `-pP` at the end takes patches of P pixels instead (a network of
the same weights but for the first layer that needs (P/2)^2 times less work). The batch norms' affine terms are trained
floats, and they keep running statistics.

Sources: Trockman and Kolter, "Patches Are All You Need?", TMLR 2023; without biases as in PEMN (NeurIPS 2022).
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from pemn.training.networks.patches import patch_grid

PATTERN = re.compile(r"convmixer-([1-9][0-9]?)-([1-9][0-9]{0,3})(?:-p([1-9][0-9]?))?")
NAMES = "convmixer-D-W or convmixer-D-W-pP"
DETAILS = "depth D 1 .. 99, width W 1 .. 9999, patches of P pixels, such as convmixer-6-256"

_PATCH = 2
_KERNEL = 5


class Block(nn.Module):
    """Mixes places (depthwise, around a residual), then channels (pointwise)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns [batch, width, down, across]."""
        x = x + self.norm1(self.gelu(self.depthwise(x)))
        mixed: Tensor = self.norm2(self.gelu(self.pointwise(x)))
        return mixed


class ConvMixer(nn.Module):
    """A ConvMixer; see `pemn.training.networks.build` for what goes in and out."""

    def __init__(self, depth: int, width: int, patch: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(in_channels, width, patch, stride=patch, bias=False)
        self.gelu = nn.GELU()
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, num_classes, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits."""
        x = self.norm(self.gelu(self.embed(image)))  # [batch, width, height / patch, width / patch]
        logits: Tensor = self.head(self.blocks(x).mean(dim=(-2, -1)))
        return logits


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    patch = int(name[3] or _PATCH)
    patch_grid(input_shape, patch, name[0])
    return ConvMixer(int(name[1]), int(name[2]), patch, input_shape[0], num_classes)
