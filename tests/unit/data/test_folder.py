from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pemn.data.datasets import load
from pemn.errors import DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def put(
    path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (20, 10), mode: str = "RGB"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        put(tmp_path / split / "dog" / "1.png", RED)
        put(tmp_path / split / "cat" / "2.PNG", BLUE)
    put(tmp_path / "train" / "cat" / "10.bmp", RED)
    return tmp_path


def test_classes_and_files_come_sorted_by_name(pets: Path) -> None:
    train = load("folder:4", pets, "train")
    assert train.name == "folder:4"
    assert train.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 1]
    assert train.images.shape == (3, 3, 4, 4)
    assert train.images[:, :, 2, 2].tolist() == [list(RED), list(BLUE), list(RED)]
    assert load("folder", pets, "test").images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp"])
def test_every_format_is_read(pets: Path, suffix: str) -> None:
    put(pets / "train" / "dog" / f"0.{suffix}", BLUE)
    train = load("folder:8", pets, "train")
    # JPEG and WebP are lossy.
    np.testing.assert_allclose(train.images[2, :, 4, 4].astype(int), BLUE, atol=6)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_8_bit_mode_becomes_rgb(pets: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    put(pets / "train" / "dog" / f"0.{suffix}", (255, 255, 255), mode=mode)
    assert load("folder:8", pets, "train").images[2, :, 4, 4].tolist() == [255, 255, 255]


def test_a_palette_with_transparency_is_read_without_a_warning(pets: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.save(pets / "train" / "dog" / "0.png", transparency=bytes([0, 128]))
    assert load("folder:8", pets, "train").images[2, :, 4, 4].tolist() == list(BLUE)


def test_resizing_averages(pets: Path) -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    Image.fromarray(checks.astype(np.uint8)).save(pets / "train" / "dog" / "0.png")
    inner = load("folder:8", pets, "train").images[2, :, 1:-1, 1:-1]
    np.testing.assert_allclose(inner.astype(int), 127, atol=2)


def test_other_and_hidden_files_are_left_alone(pets: Path) -> None:
    (pets / "train" / "dog" / "notes.txt").write_text("no image")
    (pets / "train" / "dog" / "._1.png").write_text("no image")
    (pets / "train" / ".cache").mkdir()
    (pets / "train" / "README.md").write_text("no class")
    assert load("folder:4", pets, "train").labels.tolist() == [0, 0, 1]


def test_an_unreadable_image_is_named(pets: Path) -> None:
    path = pets / "train" / "dog" / "2.png"
    good = (pets / "train" / "dog" / "1.png").read_bytes()
    for data in (b"", b"no image", good[:-30], good[:40]):
        path.write_bytes(data)
        with pytest.raises(DataError) as caught:
            load("folder:4", pets, "train")
        assert str(path) in str(caught.value)


def test_an_image_of_more_than_8_bits_is_refused_rather_than_clipped(pets: Path) -> None:
    path = pets / "train" / "dog" / "2.png"
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(path)
    with pytest.raises(DataError, match="I;16") as caught:
        load("folder:4", pets, "train")
    assert str(path) in str(caught.value)


def test_splits_with_different_classes_are_refused(pets: Path) -> None:
    put(pets / "test" / "bird" / "1.png", RED)
    for split in ("train", "test"):
        with pytest.raises(DataError, match="different classes: got bird in one only"):
            load("folder", pets, split)


def test_a_class_without_images_is_refused(pets: Path) -> None:
    for split in ("train", "test"):
        (pets / split / "bird").mkdir()
    with pytest.raises(DataError, match="class without images") as caught:
        load("folder", pets, "train")
    assert str(pets / "train" / "bird") in str(caught.value)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split_is_named(pets: Path, missing: str) -> None:
    (pets / missing).rename(pets / "elsewhere")
    with pytest.raises(DataError) as caught:
        load("folder", pets, "train")
    assert str(pets / missing) in str(caught.value)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="folder without classes"):
        load("folder", tmp_path, "train")
