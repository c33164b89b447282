"""`timm:NAME`: a model of the timm package, where that is installed, without its pretrained weights."""

from __future__ import annotations

import importlib
import re
from typing import Any

from torch import nn

from pemn.errors import ConfigError

# Without a scheme or a path: timm would download `hf-hub:...` and read `local-dir:...`.
PATTERN = re.compile(r"timm:([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)")
NAMES = "timm:NAME"
DETAILS = "such as timm:vit_tiny_patch16_224"


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "missing package", got=f"no module {error.name}", wanted="pip install timm", where=name[0]
        ) from error
    except Exception as error:  # torchvision, which it imports, raises RuntimeError beside another torch
        raise ConfigError(
            "timm cannot be imported", got=f"{type(error).__name__}: {error}", where=name[0]
        ) from error
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "in_chans": input_shape[0],
        "img_size": input_shape[1:],
    }
    try:
        try:
            module = timm.create_model(name[1], pretrained=False, **options)
        except TypeError as error:
            # No list says which models are made for one size of image; the others do not know the word.
            if "img_size" not in str(error):
                raise
            del options["img_size"]
            module = timm.create_model(name[1], pretrained=False, **options)
    except Exception as error:
        raise ConfigError(
            "timm made no such network", got=f"{type(error).__name__}: {error}", where=name[0]
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError("timm made no network", got=type(module).__name__, wanted="a module", where=name[0])
    return module
