"""What to say when an optional package is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pemn.errors import ConfigError


@contextmanager
def provided_by(extra: str) -> Iterator[None]:
    """Wraps imports of optional packages.

    Args:
        extra: The extra of the distribution that brings them.

    Raises:
        ConfigError: If a package is missing; it names the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pemn"):
            raise  # our own mistake, which no installation mends
        raise ConfigError(
            "missing package", got=f"no module {error.name}", wanted=f"pip install 'pemn[{extra}]'"
        ) from error
