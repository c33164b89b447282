from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pemn.data import datasets
from pemn.data.datasets import Dataset, input_contract, load
from pemn.errors import ConfigError, DataError
from pemn.spec import to_float32

NO_DIR = Path("no-such-folder")


def measured(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, from exact sums."""
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        levels = np.arange(256)
        total, first = int(counts.sum()), int((counts * levels).sum())
        second = int((counts * levels * levels).sum())
        means.append(first / total / 255)
        stds.append((second / total - (first / total) ** 2) ** 0.5 / 255)
    return means, stds


def test_the_constants_of_digits_are_those_of_its_training_images() -> None:
    train = load("digits", None, "train")
    means, stds = measured(train.images)
    assert np.round(means, 4) == pytest.approx(datasets.DIGITS_MEAN, abs=1e-9)
    assert np.round(stds, 4) == pytest.approx(datasets.DIGITS_STD, abs=1e-9)
    fed = input_contract("digits", train).normalise(train.images)
    assert abs(float(fed.mean())) < 1e-3
    assert float(fed.std()) == pytest.approx(1, abs=1e-3)


def test_the_constants_of_cifar10_are_those_of_its_training_images(cifar10_dir: Path) -> None:
    train = load("cifar10", cifar10_dir, "train")
    assert train.images.shape == (50_000, 3, 32, 32)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    means, stds = measured(train.images)
    assert np.round(means, 4) == pytest.approx(datasets.CIFAR10_MEAN, abs=1e-9)
    assert np.round(stds, 4) == pytest.approx(datasets.CIFAR10_STD, abs=1e-9)


def test_a_contract_is_the_same_from_either_split_and_survives_float32() -> None:
    contract = input_contract("digits", load("digits", None, "train"))
    assert contract == input_contract("digits", load("digits", None, "test"))
    assert contract.shape == (1, 8, 8)
    assert contract.class_names == tuple("0123456789")
    for value in contract.mean + contract.std:
        assert value == to_float32(value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "folder", "folder:8"])
def test_every_colour_data_set_has_constants_for_three_channels(name: str) -> None:
    images = np.zeros((1, 3, 8, 8), np.uint8)
    contract = input_contract(name, Dataset(name, images, np.zeros(1, np.int64), ("a",)))
    assert len(contract.mean) == len(contract.std) == 3


@pytest.mark.parametrize(
    "name", ["", "mnist", "Digits", "digits:8", "cifar10 ", "folder:", "folder:x", "folder:8:8", "a:b c"]
)
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(DataError) as caught:
        load(name, None, "train")
    assert str(caught.value) == (
        f"unknown data set: got {name!r}; wanted digits, cifar10, cifar100, folder, folder:SIZE, PKG:FUNCTION"
    )
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("name", ["folder:0", "folder:1025", "folder:999999999"])
def test_an_impossible_size_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"wanted 1 \.\. 1024 pixels"):
        load(name, NO_DIR, "train")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "folder"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(DataError, match="no-such-folder"):
        load(name, NO_DIR, "train")


def test_a_folder_of_images_needs_a_folder() -> None:
    with pytest.raises(DataError, match="--data-dir DIR"):
        load("folder", None, "train")


def test_cifar_without_folder_and_hub_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pemn.data.hub", raising=False)
    monkeypatch.delattr("pemn.data.hub", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if not installed
    with pytest.raises(DataError, match=r"--data-dir DIR .* pip install 'pemn\[hub\]'") as caught:
        load("cifar10", None, "train")
    assert "in cifar10" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package", "module"),
    [
        ("digits", "sklearn.datasets", "pemn.data.digits"),
        ("cifar10", "pyarrow", "pemn.data.parquet"),
        ("folder", "PIL", "pemn.data.pillow"),
    ],
)
def test_a_missing_package_is_answered_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str, module: str
) -> None:
    for mine in (module, "pemn.data.folder", "pemn.data.parquet"):
        monkeypatch.delitem(sys.modules, mine, raising=False)
        monkeypatch.delattr(mine, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"missing package: .* pip install 'pemn\[data\]'"):
        load(name, NO_DIR, "train")


def test_names_and_partitions_need_no_optional_package() -> None:
    heavy = "datasets PIL pyarrow scipy sklearn torch"
    code = (
        "import sys, pemn.data.datasets, pemn.data.partition;"
        f"print(*[m for m in '{heavy}'.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
