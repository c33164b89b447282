"""`conv-4`, `conv-6`, `conv-8`, `conv-10`: the small VGGs of the literature on lottery tickets and supermasks.

Blocks of two 3x3 convolutions, each with ReLU, and a 2x2 max pooling; two hidden linear layers of 256; a linear head.
No norm and no bias: nothing is left that a mask cannot express.

Sources: Frankle and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019 (4 and 6, with biases); Ramanujan et al.,
"What's Hidden in a Randomly Weighted Neural Network?", CVPR 2020 (adds 8; norm-free and without biases, as here).
FedPM (Isik et al., ICLR 2023) has 4, 6 and 10, norm-free, with biases that are frozen and masked like weights; its
Conv-10 has 1024 filters in the fifth block, where this one stays at VGG's 512.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from torch import nn

from pemn.errors import ConfigError

PATTERN = re.compile(r"conv-(4|6|8|10)")
NAMES = "conv-4, conv-6, conv-8 or conv-10"
DETAILS = ""

_FILTERS = (64, 128, 256, 512, 512)
_HIDDEN = (256, 256)


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    num_blocks = int(name[1]) // 2
    channels, height, width = input_shape
    if min(height, width) >> num_blocks == 0:
        raise ConfigError(
            "image too small for the network",
            got=input_shape,
            wanted=f"{1 << num_blocks} pixels a side for {num_blocks} poolings",
            where=name[0],
        )
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, filters in enumerate(_FILTERS[:num_blocks], 1):
        for j in (2 * i - 1, 2 * i):
            parts[f"conv{j}"] = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            parts[f"conv_relu{j}"] = nn.ReLU()
            channels = filters
        parts[f"pool{i}"] = nn.MaxPool2d(2)
    parts["flatten"] = nn.Flatten()
    size = channels * (height >> num_blocks) * (width >> num_blocks)
    for i, hidden in enumerate(_HIDDEN, 1):
        parts[f"linear{i}"] = nn.Linear(size, hidden, bias=False)
        parts[f"linear_relu{i}"] = nn.ReLU()
        size = hidden
    parts["head"] = nn.Linear(size, num_classes, bias=False)
    return nn.Sequential(parts)
