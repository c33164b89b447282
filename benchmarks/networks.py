"""The networks of others' benchmarks, without biases: a mask is all that a federation sends."""

from __future__ import annotations

from torch import nn


def lenet(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns LeNet for 3 x 32 x 32: 61,770 weights."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 6, 5, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120, bias=False),
        nn.ReLU(),
        nn.Linear(120, 84, bias=False),
        nn.ReLU(),
        nn.Linear(84, num_classes, bias=False),
    )


def simple_cnn(input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the `simple_cnn` of pfl-research for 3 x 32 x 32, without its dropout: 1,626,208 weights."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 32, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12_544, 128, bias=False),
        nn.ReLU(),
        nn.Linear(128, num_classes, bias=False),
    )
