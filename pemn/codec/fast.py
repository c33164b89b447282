"""Whether compiled loops are at hand: numba is an extra, and takes a second or two to load."""

from __future__ import annotations

import functools
import importlib
import logging
from types import ModuleType

PATIENCE = 1 << 22
"""Decisions that are coded without numba before it is loaded: about as long as loading takes, so a process that has
little to code does not wait, and one that has much waits once."""

_coded = 0


@functools.cache
def _load() -> ModuleType | None:
    try:
        return importlib.import_module("pemn.codec.kernels")
    except ModuleNotFoundError:
        return None
    except Exception as error:  # where numba is installed but broken: whatever its LLVM raises
        logging.getLogger(__name__).warning("numba does not load, so coding is slower: %s", error)
        return None


def kernels(num_counted: int = 0) -> ModuleType | None:
    """Returns `pemn.codec.kernels` where numba is installed and this process has enough to code.

    Which of the loops runs changes no byte.

    Args:
        num_counted: Decisions that are being counted now; each is counted once.
    """
    global _coded
    _coded += num_counted
    return _load() if _coded > PATIENCE else None
