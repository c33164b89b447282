"""A folder of image files: `DIR/train/CLASS/*.png` and `DIR/test/CLASS/*.png` (or jpg, jpeg, bmp, webp)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pemn.data.dataset import Dataset
from pemn.data.pillow import read_rgb
from pemn.errors import DataError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


def load(name: str, data_dir: Path, split: str, side: int) -> Dataset:
    """Reads one split of a folder.

    Args:
        name: What the data set is called.
        data_dir: The folder that holds `train` and `test`.
        split: `train` or `test`.
        side: Height and width that every image is resized to, in pixels.

    Returns:
        Images uint8 [N, 3, side, side], ordered by class name, then by file name.

    Raises:
        DataError: If a folder is missing, the two splits have different classes, a class has no image, or an image
            cannot be read.
    """
    class_names = _class_names(data_dir / "train")
    if (in_test := _class_names(data_dir / "test")) != class_names:
        odd = sorted(set(in_test) ^ set(class_names))
        raise DataError("train and test have different classes", got=f"{odd[0]} in one only", where=data_dir)
    images, labels = [], []
    for label, class_name in enumerate(class_names):
        folder = data_dir / split / class_name
        files = [path for path in _entries(folder) if path.suffix.lower() in _SUFFIXES]
        if not files:
            raise DataError("class without images", wanted=" ".join(sorted(_SUFFIXES)), where=folder)
        for path in files:
            try:
                images.append(read_rgb(path, side))
            except ValueError as error:
                raise DataError("unreadable image", got=error, wanted="8-bit image", where=path) from error
        labels += [label] * len(files)
    return Dataset(name, np.stack(images), np.array(labels, np.int64), class_names)


def _entries(folder: Path) -> list[Path]:
    """Returns what is in a folder, by name, without hidden files (which some systems leave beside images)."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        wanted = "train/CLASS/* and test/CLASS/*, image files"
        raise DataError("unreadable folder", got=error.strerror, wanted=wanted, where=folder) from error


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(path.name for path in _entries(folder) if path.is_dir())
    if not names:
        raise DataError("folder without classes", wanted="one folder a class", where=folder)
    return names
