from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pemn.data.cifar import CIFAR100
from pemn.data.datasets import Dataset, load
from pemn.errors import DataError

MakePng = Callable[..., bytes]
WriteShard = Callable[..., Path]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).transpose(2, 0, 1)


@pytest.mark.parametrize("inside", ["plain_text", "."])
def test_rows_of_all_shards_come_in_order(
    tmp_path: Path, write_shard: WriteShard, make_png: MakePng, inside: str
) -> None:
    folder = tmp_path / inside
    write_shard(folder / "train-00001-of-00002.parquet", [9, 8, 7], first=7)
    write_shard(folder / "train-00000-of-00002.parquet", [0, 1, 2, 3, 4, 5, 6])
    write_shard(folder / "test-00000-of-00001.parquet", [5], first=50)
    train, test = load("cifar10", tmp_path, "train"), load("cifar10", tmp_path, "test")
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 8, 7]
    assert train.class_names == tuple("abcdefghij")
    assert train.images.flags.c_contiguous
    for number, image in enumerate(train.images):
        assert (image == pixels(make_png(number))).all()
    assert test.labels.tolist() == [5]
    assert (test.images[0] == pixels(make_png(50))).all()


def test_cifar100_has_its_fine_labels(tmp_path: Path, write_shard: WriteShard) -> None:
    path = tmp_path / "cifar100" / "train-00000-of-00001.parquet"
    write_shard(path, [99, 0, 26], label_column="fine_label", class_names=None)
    train = load("cifar100", tmp_path, "train")
    assert train.labels.tolist() == [99, 0, 26]
    assert [train.class_names[i] for i in train.labels] == ["worm", "apple", "crab"]
    assert len(train.class_names) == 100
    assert list(train.class_names) == sorted(train.class_names)


def test_names_in_the_file_come_before_the_built_in_ones(tmp_path: Path, write_shard: WriteShard) -> None:
    names = [f"class {i}" for i in range(100)]
    path = tmp_path / "train-00000-of-00001.parquet"
    write_shard(path, [1], label_column="fine_label", class_names=names)
    assert load("cifar100", tmp_path, "train").class_names == tuple(names)


@pytest.mark.parametrize("metadata", [None, b"{", b"[]", b'{"info": null}', b'{"info": {"features": {}}}'])
def test_files_that_do_not_name_their_classes_get_the_built_in_names(
    tmp_path: Path, write_shard: WriteShard, metadata: bytes | None
) -> None:
    path = write_shard(tmp_path / "train-00000-of-00001.parquet", [3])
    table = pq.read_table(path).replace_schema_metadata(
        None if metadata is None else {"huggingface": metadata}
    )
    pq.write_table(table, path)
    assert load("cifar10", tmp_path, "train").class_names[3] == "cat"


def test_real_images_are_read_as_they_are(cifar10_test: Dataset, cifar10_dir: Path) -> None:
    assert cifar10_test.images.shape == (10_000, 3, 32, 32)
    assert np.bincount(cifar10_test.labels).tolist() == [1000] * 10
    assert cifar10_test.class_names[:3] == ("airplane", "automobile", "bird")
    table = pq.read_table(cifar10_dir / "plain_text" / "test-00000-of-00001.parquet")
    for row in (0, 999, 1000, 9_999):
        assert (cifar10_test.images[row] == pixels(table["img"][row]["bytes"].as_py())).all()
        assert cifar10_test.labels[row] == table["label"][row].as_py()


def test_a_missing_shard_is_noticed(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(tmp_path / "train-00000-of-00003.parquet", [1])
    write_shard(tmp_path / "train-00002-of-00003.parquet", [1])
    with pytest.raises(DataError, match=r"incomplete set .* wanted all 3 shards"):
        load("cifar10", tmp_path, "train")


def test_two_sets_of_shards_in_one_folder_are_refused(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(tmp_path / "train-00000-of-00001.parquet", [1])
    write_shard(tmp_path / "train-00000-of-00002.parquet", [1])
    with pytest.raises(DataError, match="and no others"):
        load("cifar10", tmp_path, "train")


def test_a_folder_without_the_split_says_what_was_looked_for(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(tmp_path / "train-00000-of-00001.parquet", [1])
    with pytest.raises(DataError, match=r"test-\*\.parquet there or in plain_text"):
        load("cifar10", tmp_path, "test")


def test_an_unusable_image_is_named_by_file_and_row(
    tmp_path: Path, write_shard: WriteShard, make_png: MakePng
) -> None:
    good = make_png(0)
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 0xFF
    bad: dict[str, tuple[bytes | None, str]] = {
        "null": (None, "not a PNG"),
        "empty": (b"", "not a PNG"),
        "text": (b"no image", "not a PNG"),
        "cut": (good[: len(good) // 2], "not a PNG"),
        "damaged": (bytes(damaged), "not a PNG"),
        "large": (make_png(1, side=33), "33x33 RGB"),
        "grey": (make_png(1, mode="L"), "32x32 L"),
        "transparent": (make_png(1, mode="RGBA"), "32x32 RGBA"),
    }
    for name, (data, complaint) in bad.items():
        path = tmp_path / name / "train-00000-of-00001.parquet"
        write_shard(path, [0] * 6, images=[good, good, good, good, data, good])
        with pytest.raises(DataError) as caught:
            load("cifar10", path.parent, "train")
        assert complaint in str(caught.value), name
        assert f"{path}, row 4" in str(caught.value), name
        assert "\n" not in str(caught.value)


def test_rows_are_counted_through_all_batches(
    tmp_path: Path, write_shard: WriteShard, make_png: MakePng
) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    images = [make_png(0)] * 1003
    write_shard(path, [0] * 1003, images=[*images[:1001], b"", images[0]], row_group_size=1000)
    with pytest.raises(DataError, match="row 1001"):
        load("cifar10", tmp_path, "train")


@pytest.mark.parametrize("label", [10, -1, None, 1 << 40])
def test_an_impossible_label_is_named_by_file_and_row(
    tmp_path: Path, write_shard: WriteShard, label: int | None
) -> None:
    path = write_shard(tmp_path / "train-00000-of-00001.parquet", [0, label, 0])
    with pytest.raises(DataError) as caught:
        load("cifar10", tmp_path, "train")
    assert "wanted 0 .. 9" in str(caught.value)
    assert f"{path}, row 1" in str(caught.value)


def test_other_columns_are_listed(tmp_path: Path, write_shard: WriteShard) -> None:
    path = write_shard(tmp_path / "train-00000-of-00001.parquet", [0])
    with pytest.raises(DataError, match=r"got img struct<.*>, label int64; wanted .* fine_label") as caught:
        load("cifar100", tmp_path, "train")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"img": pa.array([b"x"]), "label": pa.array([0])},
        {"img": pa.array([{"path": "x"}]), "label": pa.array([0])},
        {"img": pa.array([{"bytes": "x"}]), "label": pa.array([0])},
        {"img": pa.array([{"bytes": b"x"}]), "label": pa.array([0.0])},
        {"img": pa.array([{"bytes": b"x"}])},
    ],
)
def test_columns_of_another_type_are_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match="columns of cifar10"):
        load("cifar10", tmp_path, "train")


def test_another_number_of_classes_is_refused(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(tmp_path / "train-00000-of-00001.parquet", [0], class_names=["a", "b"])
    with pytest.raises(DataError, match="classes of cifar10: got 2; wanted 10"):
        load("cifar10", tmp_path, "train")


def test_shards_that_name_classes_differently_are_refused(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(tmp_path / "train-00000-of-00002.parquet", [0])
    write_shard(tmp_path / "train-00001-of-00002.parquet", [0], class_names=tuple("jihgfedcba"))
    with pytest.raises(DataError, match="different class names"):
        load("cifar10", tmp_path, "train")


def test_a_file_without_rows_is_refused(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(tmp_path / "train-00000-of-00001.parquet", [])
    with pytest.raises(DataError, match="no rows"):
        load("cifar10", tmp_path, "train")


def test_a_corrupt_file_is_refused_or_read_right_wherever_it_is_damaged(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    """A flipped bit gives a DataError that names the file, or hits what is not read (statistics, padding)."""
    path = write_shard(tmp_path / "train-00000-of-00001.parquet", [1, 2])
    good, read = path.read_bytes(), load("cifar10", tmp_path, "train")
    rng = np.random.default_rng(1)
    refused = []
    for _ in range(300):
        damaged = bytearray(good)
        damaged[rng.integers(len(good))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            again = load("cifar10", tmp_path, "train")
        except DataError as error:
            refused.append(str(error))
        else:
            assert (again.images == read.images).all()
            assert (again.labels == read.labels).all()
    assert len(refused) > 60
    assert all(str(tmp_path) in message for message in refused)
    for length in (0, 3, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match="unreadable Parquet file"):
            load("cifar10", tmp_path, "train")


def test_cifar100_class_names_are_a_hundred() -> None:
    assert len(set(CIFAR100.class_names)) == 100
