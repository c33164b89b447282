"""A labelled set of images, and the numbers that a network is fed for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pemn.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, in memory.

    Attributes:
        name: What the user called it, such as `cifar10` or `folder:64`.
        images: uint8 [N, C, H, W], pixels 0 .. 255.
        labels: int64 [N], each 0 .. K-1.
        class_names: The K names, in label order; no two are the same.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            DataError: If a shape, dtype, label or class name is wrong.
        """
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
            raise DataError(
                "images of a data set",
                got=f"{images.dtype} {list(images.shape)}",
                wanted="uint8 [N, C, H, W], at least one",
                where=self.name,
            )
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                "labels of a data set",
                got=f"{labels.dtype} {list(labels.shape)}",
                wanted=f"int64 [{len(images)}]",
                where=self.name,
            )
        if unfit := [name for name in self.class_names if not name or not name.isprintable()]:
            raise DataError("class name", got=repr(unfit[0]), wanted="printable text", where=self.name)
        if len(set(self.class_names)) != len(self.class_names):
            raise DataError("two classes of one name", where=self.name)
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.class_names):
            raise DataError(
                "label out of range",
                got=low if low < 0 else high,
                wanted=f"0 .. {len(self.class_names) - 1}",
                where=self.name,
            )
