"""`resnet-20`, `-32`, `-44`, `-56`, `-110`: the residual networks made for CIFAR.

Three stages of 16, 32 and 64 channels, the last two of half the size; shortcuts without weights (option A); batch norm,
ReLU. The batch norms' affine terms are trained floats, and they keep running statistics.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2; the head has no bias here.
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torch.nn.functional import pad

PATTERN = re.compile(r"resnet-(20|32|44|56|110)")
NAMES = "resnet-20, resnet-32, resnet-44, resnet-56 or resnet-110"
DETAILS = ""

_CHANNELS = (16, 32, 64)


class Shortcut(nn.Module):
    """Option A: every second pixel both ways, and zeros in the channels that are new."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, x: Tensor) -> Tensor:
        """Takes [batch, channels, height, width]; sizes are halved, rounded up."""
        return pad(x[..., ::2, ::2], (0, 0, 0, 0, 0, self.new_channels))


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut; with stride 2 where the channels change."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        grows = in_channels != channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=2 if grows else 1, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = Shortcut(channels - in_channels) if grows else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Takes [batch, in_channels, height, width]."""
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A residual network; see `pemn.training.networks.build` for what goes in and out."""

    def __init__(self, blocks_per_stage: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        channels = _CHANNELS[0]
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        blocks = []
        for stage_channels in _CHANNELS:
            for _ in range(blocks_per_stage):
                blocks.append(Block(channels, stage_channels))
                channels = stage_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits."""
        x = self.blocks(self.relu(self.norm(self.conv(image))))  # [batch, 64, height / 4, width / 4]
        logits: Tensor = self.head(x.mean(dim=(-2, -1)))
        return logits


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    # A convolution before and a linear layer after the blocks of two.
    return ResNet((int(name[1]) - 2) // 6, input_shape[0], num_classes)
