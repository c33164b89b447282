"""The handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels, no download.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998 (its test part).
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from pemn.data.dataset import Dataset
from pemn.generator import Purpose, child, permutation

_BRIGHTEST = 16  # of the source's pixels
_SPLIT_SEED = 0
_TEST_SHARE = 5  # one image in five is a test image


def load(name: str, split: str) -> Dataset:
    """Returns one split: about 80 % of every class to train on, the rest to test on.

    The source has no split. This one is drawn from a constant seed, so every machine has the same.

    Args:
        name: What the data set is called.
        split: `train` or `test`.

    Returns:
        Images uint8 [N, 1, 8, 8], in the source's order.
    """
    pixels, target = load_digits(return_X_y=True)
    images = (pixels.astype(np.int64) * 255 // _BRIGHTEST).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = target.astype(np.int64)
    in_test = np.zeros(len(labels), np.bool_)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        order = permutation(child(_SPLIT_SEED, Purpose.SPLIT, digit), len(members))
        in_test[members[order[: len(members) // _TEST_SHARE]]] = True
    chosen = in_test if split == "test" else ~in_test
    return Dataset(name, images[chosen], labels[chosen], tuple("0123456789"))
