from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pemn.data.dataset import Dataset
from pemn.errors import DataError
from pemn.spec import InputContract, to_float32

IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
LABELS = np.array([1, 0])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"images": IMAGES.astype(np.float32)}, "float32 [2, 3, 4, 5]"),
        ({"images": IMAGES[0]}, "uint8 [3, 4, 5]"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "at least one"),
        ({"labels": LABELS.astype(np.int32)}, "int32 [2]"),
        ({"labels": LABELS[:1]}, "wanted int64 [2]"),
        ({"labels": np.array([0, 2])}, "label out of range: got 2; wanted 0 .. 1"),
        ({"labels": np.array([-1, 0])}, "got -1"),
        ({"class_names": ("a", "a")}, "two classes of one name"),
        ({"class_names": ("a", "")}, "class name"),
        ({"class_names": ("a", "b\udcff")}, "class name"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_name(change: dict[str, Any], complaint: str) -> None:
    good: dict[str, Any] = {"images": IMAGES, "labels": LABELS, "class_names": ("a", "b")}
    Dataset("mine", **good)
    with pytest.raises(DataError) as caught:
        Dataset("mine", **(good | change))
    assert complaint in str(caught.value)
    assert "in mine" in str(caught.value)


def test_normalised_images_follow_the_formula() -> None:
    mean, std = (0.5, 0.25, 0.125), tuple(map(to_float32, (0.3, 0.2, 0.1)))
    got = InputContract((3, 4, 5), mean, std, ("a", "b")).normalise(IMAGES)
    wanted = (IMAGES / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


def test_images_of_another_shape_or_dtype_are_not_normalised() -> None:
    contract = InputContract((3, 4, 4), (0.5,) * 3, (0.25,) * 3, ("a", "b"))
    with pytest.raises(DataError, match=r"got uint8 \[2, 3, 4, 5\]; wanted uint8 \[N, 3, 4, 4\]"):
        contract.normalise(IMAGES)
    with pytest.raises(DataError, match="do not fit"):
        contract.normalise(IMAGES[..., :4].astype(np.int64))
