from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from pemn.data.datasets import Dataset, load


def fingerprint(dataset: Dataset) -> str:
    return hashlib.sha256(dataset.images.tobytes() + dataset.labels.tobytes()).hexdigest()


def test_the_splits_are_the_source_once_each() -> None:
    train, test = load("digits", None, "train"), load("digits", None, "test")
    pixels, labels = load_digits(return_X_y=True)

    def rows(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[bytes]:
        return sorted(image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True))

    scaled = (pixels.astype(int) * 255 // 16).astype(np.uint8)
    both = rows(train.images, train.labels) + rows(test.images, test.labels)
    assert sorted(both) == rows(scaled, labels)
    assert train.images.max() == 255


def test_a_fifth_of_every_class_is_for_testing() -> None:
    train = np.bincount(load("digits", None, "train").labels)
    test = np.bincount(load("digits", None, "test").labels)
    assert (test == (train + test) // 5).all()


def test_the_splits_never_change() -> None:
    """Written once; another value means that clients of two versions train on different images."""
    assert (
        fingerprint(load("digits", None, "train"))
        == "b15b8bce5be2769b9edd20a2e4a05c01156e444752777cdd83adca46a79de6a3"
    )
    assert (
        fingerprint(load("digits", None, "test"))
        == "46ded3f16fd6fa7c517dd587274072d941af15ffe7f74d9082ed715746ce6ad6"
    )
