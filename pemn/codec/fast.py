"""Whether compiled loops are at hand: numba is an extra, and worth loading for large masks only."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

MANY_DECISIONS = 1 << 15
"""At once; as long as there were never so many, loading numba takes longer than doing without."""


@functools.cache
def _load() -> ModuleType | None:
    try:
        return importlib.import_module("pemn.codec.kernels")
    except ImportError:
        return None


def kernels(num_decisions: int) -> ModuleType | None:
    """Returns `pemn.codec.kernels` where numba is installed, and loaded or the work is worth loading it."""
    loaded = _load.cache_info().currsize > 0
    return _load() if loaded or num_decisions >= MANY_DECISIONS else None
