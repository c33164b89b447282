"""Data sets by name.

    digits          scikit-learn's handwritten digits, 1 x 8 x 8, no download
    cifar10         Parquet files in the hub's layout, 3 x 32 x 32
    cifar100        the same, with the 100 fine labels
    folder[:SIZE]   image files, `train/CLASS/*` and `test/CLASS/*`, resized to SIZE x SIZE (32 unless said)
    PKG:FUNCTION    what a function of an installed package returns (`pemn.data.from_package`)

The package that reads a format is imported when a data set of that format is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pemn.data import from_package
from pemn.data.cifar import CIFAR10, CIFAR100, Layout
from pemn.data.dataset import Dataset
from pemn.data.extras import provided_by
from pemn.errors import DataError
from pemn.installed import is_installed
from pemn.spec import InputContract, to_float32

__all__ = ["Dataset", "NAMES", "Split", "input_contract", "load"]

Split = Literal["train", "test"]

NAMES = ("digits", "cifar10", "cifar100", "folder", "folder:SIZE", "PKG:FUNCTION")
"""What a user can ask for."""

# Mean and standard deviation of each channel over all pixels of the training images, in units of the full range:
# constants, because a server that has no training images must feed a network what the clients feed it.
DIGITS_MEAN, DIGITS_STD = (0.3044,), (0.3761,)
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# CIFAR-100's are not measured here but the figures in common use, as in Tian et al., "Contrastive Representation
# Distillation", ICLR 2020 (github.com/HobbitLong/RepDistiller, dataset/cifar100.py).
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
# Nothing is known about a user's own images: these bring the pixels of every channel to -2 .. 2.
OWN_MEAN, OWN_STD = (0.5,), (0.25,)

DEFAULT_SIDE = 32
MAX_SIDE = 1024
"""Of a folder's images, in pixels."""

_FOLDER = re.compile(r"folder(?::([0-9]{1,9}))?")


@dataclass(frozen=True)
class _Source:
    """A name's meaning: how its images are read, and its normalisation constants, one a channel or one for all."""

    load: Callable[[Path | None, Split], Dataset]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load(name: str, data_dir: Path | None, split: Split) -> Dataset:
    """Returns one split of a data set.

    Args:
        name: One of `NAMES`.
        data_dir: Folder of its files. `digits` needs none and ignores it; CIFAR is downloaded without one.
        split: `train` or `test`.

    Raises:
        DataError: If the name is unknown, or files are missing, corrupt or of another layout.
        ConfigError: If a package that reads the files is not installed.
    """
    return _find(name).load(data_dir, split)


def input_contract(name: str, dataset: Dataset) -> InputContract:
    """Returns what a network for this data set is fed; any split of it gives the same.

    Args:
        name: The name that `dataset` was loaded by.
        dataset: Says the shape and the class names.

    Raises:
        DataError: If the name is unknown.
    """
    source = _find(name)
    _, channels, height, width = dataset.images.shape
    mean, std = (values * channels if len(values) == 1 else values for values in (source.mean, source.std))
    return InputContract(
        shape=(channels, height, width),
        mean=tuple(map(to_float32, mean)),
        std=tuple(map(to_float32, std)),
        class_names=dataset.class_names,
    )


def _find(name: str) -> _Source:
    """Returns what a name means: the one place where names are known."""
    if name == "digits":
        return _Source(partial(_load_digits, name), DIGITS_MEAN, DIGITS_STD)
    if name == "cifar10":
        return _Source(partial(_load_cifar, CIFAR10), CIFAR10_MEAN, CIFAR10_STD)
    if name == "cifar100":
        return _Source(partial(_load_cifar, CIFAR100), CIFAR100_MEAN, CIFAR100_STD)
    if match := _FOLDER.fullmatch(name):
        side = int(match[1] or DEFAULT_SIDE)
        if not 1 <= side <= MAX_SIDE:
            raise DataError("image size", got=side, wanted=f"1 .. {MAX_SIDE} pixels", where=name)
        return _Source(partial(_load_folder, name, side), OWN_MEAN, OWN_STD)
    if is_installed(name) and not name.startswith("folder:"):
        return _Source(partial(from_package.load, name), OWN_MEAN, OWN_STD)
    raise DataError("unknown data set", got=repr(name), wanted=", ".join(NAMES))


def _load_digits(name: str, data_dir: Path | None, split: Split) -> Dataset:
    with provided_by("data"):
        from pemn.data import digits
    return digits.load(name, split)


def _load_cifar(layout: Layout, data_dir: Path | None, split: Split) -> Dataset:
    if data_dir is not None:
        with provided_by("data"):
            from pemn.data import parquet
        return parquet.load(layout, data_dir, split)
    try:
        from pemn.data import hub
    except ModuleNotFoundError as error:
        raise DataError(
            "no folder with the data set",
            got=f"no module {error.name}",
            wanted="--data-dir DIR with its Parquet files, or pip install 'pemn[hub]' to download it",
            where=layout.name,
        ) from error
    return hub.load(layout, split)


def _load_folder(name: str, side: int, data_dir: Path | None, split: Split) -> Dataset:
    if data_dir is None:
        raise DataError("no folder with the data set", wanted="--data-dir DIR", where=name)
    with provided_by("data"):
        from pemn.data import folder
    return folder.load(name, data_dir, split, side)
