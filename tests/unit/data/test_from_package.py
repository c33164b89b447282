"""Data sets that a user's own package brings: `PKG:FUNCTION`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pemn.data.datasets import input_contract, load
from pemn.errors import DataError

IMAGES = np.arange(2 * 2 * 3 * 4, dtype=np.uint8).reshape(2, 2, 3, 4)
LABELS = np.array([1, 0], np.uint8)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("their_data")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_function_is_told_split_and_folder(package: ModuleType) -> None:
    calls = []

    def images(split: str, data_dir: Path | None) -> Any:
        calls.append((split, data_dir))
        return IMAGES, LABELS, ["cat", "dog"]

    package.images = images  # type: ignore[attr-defined]
    data = load("their_data:images", Path("here"), "test")
    assert calls == [("test", Path("here"))]
    assert data.name == "their_data:images"
    assert np.array_equal(data.images, IMAGES)
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [1, 0]
    assert data.class_names == ("cat", "dog")
    contract = input_contract(data.name, data)
    assert contract.shape == (2, 3, 4)
    assert (contract.mean, contract.std) == ((0.5, 0.5), (0.25, 0.25))
    load("their_data:images", None, "train")
    assert calls[1] == ("train", None)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, r"data set of a package: got NoneType; wanted \(images, labels, class names\)"),
        ((IMAGES, LABELS), "data set of a package: got tuple"),
        ((IMAGES, [0.5, 1.0], "ab"), "labels of a data set: got float64; wanted whole numbers"),
        ((IMAGES.astype(float), LABELS, "ab"), "images of a data set: got float64"),
        ((IMAGES, [0, 2], "ab"), "label out of range: got 2"),
        ((IMAGES, LABELS[:1], "ab"), "labels of a data set"),
        ((IMAGES, [[1], [1, 2]], "ab"), "data set of a package, .*inhomogeneous"),
        ((IMAGES, LABELS, 2), "data set of a package, .*not iterable"),
    ],
)
def test_what_is_no_data_set_is_refused_by_name(package: ModuleType, found: Any, told: str) -> None:
    package.images = lambda split, data_dir: found  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=told + ".*in their_data:images"):
        load("their_data:images", None, "train")


def test_a_function_that_fails_is_one_line(package: ModuleType) -> None:
    def images(split: str, data_dir: Path | None) -> Any:
        raise KeyError("no split")

    package.images = images  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="data set failed: got KeyError: 'no split'; in their_data:images"):
        load("their_data:images", None, "train")
    with pytest.raises(DataError, match="missing package: got no module pemn_no_such"):
        load("pemn_no_such:images", None, "train")
