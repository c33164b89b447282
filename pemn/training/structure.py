"""A hash of a network's structure, by which two ends tell that they would compute different things."""

from __future__ import annotations

import hashlib
import json

from torch import nn

from pemn.wire.limits import STRUCTURE_BYTES

_VERSION = "pemn structure 2"


def structure_hash(module: nn.Module) -> bytes:
    """Returns a hash of a module tree: equal for two fresh builds of one network, whatever their weights.

    Take it of a network as `pemn.training.networks.build` makes it: masking changes the tree, and a public counter that
    `forward` moves on is an attribute like any other.

    It covers, in the tree's order: every submodule's qualified name and class name; its public attributes that are
    plain values or named functions (stride, padding, groups, eps, dropout, heads, an activation); the names, shapes and
    dtypes of its parameters and buffers; whether a buffer is saved; and which modules and tensors are shared.

    It cannot see code: what `forward` does, in which order, and with which constants; hooks; private attributes,
    dictionaries and other objects; nor the values of buffers. Two ends with different code of one class have equal
    hashes. Whether modules train or evaluate is left out.

    Returns:
        The first 16 bytes of a SHA-256.
    """
    sha256 = hashlib.sha256()
    first_names: dict[int, str] = {}
    saved = set(module.state_dict())

    def add(kind: str, name: str, what: object, *facts: object) -> None:
        shared_with = first_names.setdefault(id(what), name)
        sha256.update(json.dumps([kind, name, shared_with, *facts]).encode() + b"\n")

    sha256.update(_VERSION.encode() + b"\n")
    # Duplicates too: an activation that is used twice is two steps of a sequence.
    for name, part in module.named_modules(remove_duplicate=False):
        add("module", name, part, type(part).__qualname__, _attributes(part))
        for key, tensor in part.named_parameters(name, recurse=False, remove_duplicate=False):
            add("parameter", key, tensor, list(tensor.shape), str(tensor.dtype))
        for key, tensor in part.named_buffers(name, recurse=False, remove_duplicate=False):
            add("buffer", key, tensor, list(tensor.shape), str(tensor.dtype), key in saved)
    return sha256.digest()[:STRUCTURE_BYTES]


def _attributes(module: nn.Module) -> dict[str, object]:
    """Returns a module's public attributes that JSON can hold, by name in order."""
    plain = {}
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or name == "training":
            continue
        try:
            plain[name] = _plain(value)
        except (TypeError, RecursionError):  # a list may hold itself
            continue
    return plain


def _plain(value: object) -> object:
    """Returns a value as JSON can hold it.

    Raises:
        TypeError: If it is not plain.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    raise TypeError
