"""Whether the compiled loops over weights are at hand."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

from pemn.codec.fast import kernels as codec_kernels


@functools.cache
def _load() -> ModuleType:
    return importlib.import_module("pemn.federation.kernels")


def kernels() -> ModuleType | None:
    """Returns `pemn.federation.kernels` where the codec uses its own; which of the loops runs changes no integer."""
    return _load() if codec_kernels() else None
