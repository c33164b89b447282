"""`PKG:FUNCTION`: a data set of one's own.

`FUNCTION(split, data_dir)` is given `"train"` or `"test"` and the folder of `--data-dir` (a `pathlib.Path` or None). It
returns (images, labels, class names): uint8 [N, C, H, W], whole numbers [N] from 0, and a sequence of texts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pemn.data.dataset import Dataset
from pemn.errors import ConfigError, DataError
from pemn.installed import call


def load(name: str, data_dir: Path | None, split: str) -> Dataset:
    """Returns one split.

    Raises:
        DataError: If the package is missing, the function fails or returns something else.
    """
    try:
        found = call(name, "data set", split, data_dir)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if not isinstance(found, tuple) or len(found) != 3:
        raise DataError(
            "data set of a package",
            got=type(found).__name__,
            wanted="(images, labels, class names)",
            where=name,
        )
    try:
        images, labels = np.asarray(found[0]), np.asarray(found[1])
        class_names = tuple(map(str, found[2]))
    except (TypeError, ValueError) as error:  # ragged lists, a number in the place of names
        wanted = "arrays, and a sequence of class names"
        raise DataError(f"data set of a package, {error}", wanted=wanted, where=name) from error
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError("labels of a data set", got=labels.dtype, wanted="whole numbers", where=name)
    return Dataset(name, images, labels.astype(np.int64), class_names)
