"""From a name to a network: the one place where names are known."""

from __future__ import annotations

import re
from typing import Protocol

from torch import nn

from pemn.errors import ConfigError
from pemn.training.networks import cnn, conv, convmixer, from_package, from_timm, mlp, resnet, vit
from pemn.wire.limits import MAX_TEXT_BYTES


class Family(Protocol):
    """What a module of this package offers.

    Attributes:
        PATTERN: Matches the family's names, whole; ASCII only.
        NAMES: What they look like, for people.
        DETAILS: What else is to be known of them, or nothing.
    """

    PATTERN: re.Pattern[str]
    NAMES: str
    DETAILS: str

    def make(self, name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        """Returns the network of a name that `PATTERN` has matched; see `build`."""


_FAMILIES: tuple[Family, ...] = (mlp, cnn, conv, resnet, convmixer, vit, from_timm, from_package)


def build(architecture: str, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns a network with torch's own initial weights.

    A name means the same network on every machine, except `timm:NAME` and `PKG:FACTORY`: they *import and run* code
    that is installed here, so compare `pemn.training.structure.structure_hash`, and do not build them by a name that
    somebody else has chosen.

    Args:
        architecture: A family's name, such as `convmixer-6-256`; an error lists them.
        input_shape: (channels, height, width) of one image.
        num_classes: Number of outputs.

    Returns:
        A module from float32 [batch, channels, height, width] to logits [batch, classes].

    Raises:
        ConfigError: If there is no such network, or none for such images.
    """
    if len(architecture) > MAX_TEXT_BYTES:  # all names are ASCII
        raise ConfigError(
            "name of the network", got=f"{len(architecture)} characters", wanted=f"at most {MAX_TEXT_BYTES}"
        )
    for family in _FAMILIES:
        if name := family.PATTERN.fullmatch(architecture):
            return family.make(name, input_shape, num_classes)
    stem = re.split("[-:]", architecture)[0]
    meant = [f for f in _FAMILIES if re.split("[-:]", f.NAMES)[0] == stem]
    wanted = "; ".join(filter(None, (meant[0].NAMES, meant[0].DETAILS))) if meant else _all_names()
    raise ConfigError("unknown architecture", got=repr(architecture), wanted=wanted)


def _all_names() -> str:
    return "; ".join(family.NAMES for family in _FAMILIES)
