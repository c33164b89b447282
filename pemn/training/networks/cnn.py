"""`cnn-C1-C2-...`: per width a 3x3 convolution, group norm and ReLU; mean over the image; a linear head.

Convolutions have stride 2 in the first two and 1 after. The norms have neither affine terms nor running statistics:
nothing is left that a mask cannot express.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict

from torch import Tensor, nn

from pemn.errors import ConfigError

PATTERN = re.compile(r"cnn((?:-(?:[2-9]|[1-9][0-9]{1,4}))+)")  # a single channel would be normalised away
NAMES = "cnn-C1-C2-..."
DETAILS = "widths 2 .. 99999, such as cnn-64-128-128"

_NUM_GROUPS = 8
_NUM_STRIDED = 2


class GlobalMean(nn.Module):
    """Mean over the image: batch x channels x height x width -> batch x channels."""

    def forward(self, image: Tensor) -> Tensor:
        """Returns the mean of every channel."""
        return image.mean(dim=(-2, -1))


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels, height, width = input_shape
    for i, filters in enumerate(map(int, name[1].split("-")[1:]), 1):
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
    return nn.Sequential(parts)
