"""`PKG:FACTORY`: a network of one's own: `FACTORY(input_shape, num_classes) -> nn.Module` in a package."""

from __future__ import annotations

import re

from torch import nn

from pemn.errors import ConfigError
from pemn.installed import PATTERN as PATTERN
from pemn.installed import call

NAMES = "PKG:FACTORY"
DETAILS = "such as my_models.small:resnet, called with (channels, height, width) and the classes"


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    module = call(name[0], "factory of the network", input_shape, num_classes)
    if not isinstance(module, nn.Module):
        raise ConfigError(
            "factory returned no network",
            got=type(module).__name__,
            wanted="a torch.nn.Module",
            where=name[0],
        )
    return module
