"""Callables that users bring, by name: `PKG:NAME`. Looking one up imports, so runs, code that is installed here."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

from pemn.errors import ConfigError

_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
PATTERN = re.compile(rf"({_IDENTIFIER}(?:\.{_IDENTIFIER})*):({_IDENTIFIER})")


def is_installed(name: str) -> bool:
    """Returns whether a name has the form of installed code."""
    return PATTERN.fullmatch(name) is not None


def call(name: str, what: str, *arguments: object) -> Any:
    """Returns what a callable of an installed package returns.

    Args:
        name: `PKG:NAME`.
        what: What it makes, for messages.
        arguments: It is called with.

    Raises:
        ConfigError: If the package is missing or cannot be imported, has no such callable, or that fails.
    """
    function = _find(name)
    try:
        return function(*arguments)
    except ConfigError:
        raise  # it says what it wants better than we could
    except (Exception, SystemExit) as error:
        wanted = f"a callable that takes {arguments}" if isinstance(error, TypeError) else None
        got = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{what} failed", got=got, wanted=wanted, where=name) from error


def _find(name: str) -> Callable[..., object]:
    package, _, attribute = name.partition(":")
    try:
        namespace = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "missing package",
            got=f"no module {error.name}",
            wanted="the same code installed on every machine of a run",
            where=name,
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            "package cannot be imported", got=f"{type(error).__name__}: {error}", where=name
        ) from error
    found = getattr(namespace, attribute, None)
    if not callable(found):
        raise ConfigError(
            "package without this function",
            got="no such attribute" if found is None else type(found).__name__,
            wanted=f"a callable {attribute}",
            where=name,
        )
    function: Callable[..., object] = found
    return function
