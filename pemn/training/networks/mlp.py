"""`mlp-W1-W2-...`: per width a linear layer, layer norm and ReLU; a linear head.

The norms have no affine terms: nothing is left that a mask cannot express.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict

from torch import nn

PATTERN = re.compile(r"mlp((?:-(?:[2-9]|[1-9][0-9]{1,4}))+)")  # a single value would be normalised away
NAMES = "mlp-W1-W2-..."
DETAILS = "widths 2 .. 99999, such as mlp-256-256"


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    size = math.prod(input_shape)
    for i, width in enumerate(map(int, name[1].split("-")[1:]), 1):
        parts[f"linear{i}"] = nn.Linear(size, width, bias=False)
        parts[f"norm{i}"] = nn.LayerNorm(width, elementwise_affine=False)
        parts[f"relu{i}"] = nn.ReLU()
        size = width
    parts["head"] = nn.Linear(size, num_classes, bias=False)
    return nn.Sequential(parts)
