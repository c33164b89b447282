"""`PKG:FACTORY`: a network of one's own: `FACTORY(input_shape, num_classes) -> nn.Module` in a package."""

from __future__ import annotations

import importlib
import re

from torch import nn

from pemn.errors import ConfigError

_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
PATTERN = re.compile(rf"({_IDENTIFIER}(?:\.{_IDENTIFIER})*):({_IDENTIFIER})")
NAMES = "PKG:FACTORY, such as my_models.small:resnet, called with (channels, height, width) and the classes"


def make(name: re.Match[str], input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Returns the network of a name; see `pemn.training.networks.build`."""
    package, attribute = name.groups()
    try:
        namespace = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "missing package",
            got=f"no module {error.name}",
            wanted="the same code installed on every machine of a run",
            where=name[0],
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            "package cannot be imported", got=f"{type(error).__name__}: {error}", where=name[0]
        ) from error
    factory = getattr(namespace, attribute, None)
    if not callable(factory):
        raise ConfigError(
            "package without this factory",
            got="no such attribute" if factory is None else type(factory).__name__,
            wanted=f"a callable {attribute}",
            where=name[0],
        )
    try:
        module = factory(input_shape, num_classes)
    except ConfigError:
        raise  # it says what it wants better than we could
    except (Exception, SystemExit) as error:
        raise ConfigError(
            "factory of the network failed", got=f"{type(error).__name__}: {error}", where=name[0]
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            "factory returned no network",
            got=type(module).__name__,
            wanted="a torch.nn.Module",
            where=name[0],
        )
    return module
