from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pemn.data import datasets as by_name
from pemn.data.cifar import CIFAR10, Layout
from pemn.data.datasets import load
from pemn.errors import DataError

WriteShard = Callable[..., Path]


class Features(dict[str, Any]):
    def __init__(self, columns: dict[str, Any], arrow_schema: pa.Schema) -> None:
        super().__init__(columns)
        self.arrow_schema = arrow_schema


class ClassLabel:
    names = tuple("abcdefghij")


class Found:
    """The part of `datasets.Dataset` that is used, over one Parquet file."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        columns = {name: ClassLabel() if name == "label" else object() for name in table.column_names}
        self.features = Features(columns, table.schema)

    def select_columns(self, names: list[str]) -> Found:
        return Found(self.table.select(names))

    def cast_column(self, name: str, feature: object) -> Found:
        assert name == "img"
        assert feature == "encoded image"
        return self

    def with_format(self, kind: str) -> Found:
        assert kind == "arrow"
        return self

    def iter(self, batch_size: int) -> Iterator[pa.Table]:
        for begin in range(0, self.table.num_rows, batch_size):
            yield self.table.slice(begin, batch_size)


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A `datasets` package that serves `tmp_path/SPLIT.parquet` as uoft-cs/cifar10."""

    def load_dataset(repository: str, config: str, split: str) -> Found:
        assert (repository, config) == ("uoft-cs/cifar10", "plain_text")
        return Found(pq.read_table(tmp_path / f"{split}.parquet"))

    def image(*, decode: bool) -> str:
        assert not decode
        return "encoded image"

    fake = ModuleType("datasets")
    fake.load_dataset = load_dataset  # type: ignore[attr-defined]
    fake.Image = image  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.delitem(sys.modules, "pemn.data.hub", raising=False)
    monkeypatch.delattr("pemn.data.hub", raising=False)
    yield tmp_path
    # The module that holds the fake must not outlive it.
    sys.modules.pop("pemn.data.hub", None)
    if hasattr(sys.modules["pemn.data"], "hub"):
        del sys.modules["pemn.data"].hub


def test_without_a_folder_the_hub_is_asked(fake_hub: Path, write_shard: WriteShard) -> None:
    write_shard(fake_hub / "train.parquet", [3, 1, 2] * 400)
    write_shard(fake_hub / "plain" / "train-00000-of-00001.parquet", [3, 1, 2] * 400)
    hub, local = load("cifar10", None, "train"), load("cifar10", fake_hub / "plain", "train")
    assert hub.labels.tolist() == [3, 1, 2] * 400
    assert hub.class_names == tuple("abcdefghij")
    assert (hub.images == local.images).all()


def test_what_the_hub_serves_is_checked(fake_hub: Path, write_shard: WriteShard) -> None:
    write_shard(fake_hub / "train.parquet", [0, 1], images=[None, None])
    with pytest.raises(DataError, match=r"unusable image.*uoft-cs/cifar10 on the hub, row 0"):
        load("cifar10", None, "train")
    write_shard(fake_hub / "train.parquet", [0], label_column="fine_label")
    with pytest.raises(DataError, match="columns of cifar10"):
        load("cifar10", None, "train")


def test_an_unreachable_hub_is_one_line(fake_hub: Path) -> None:
    with pytest.raises(DataError, match=r"not downloaded: .*--data-dir DIR; in uoft-cs/cifar10") as caught:
        load("cifar10", None, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs pip install 'pemn[hub]'")
@pytest.mark.filterwarnings("ignore")  # the library's own, which change from one release to the next
def test_the_library_itself_gives_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_shard: WriteShard
) -> None:
    """With a local folder in the place of the hub: its network is the only part that is not run."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_shard(tmp_path / "hub" / "plain_text" / "train-00000-of-00001.parquet", [3, 1, 2] * 400)
    (tmp_path / "hub" / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain_text\n  data_files:\n"
        "  - split: train\n    path: plain_text/train-*\n---\n"
    )
    here = Layout("cifar10", str(tmp_path / "hub"), "plain_text", "label", CIFAR10.class_names)
    monkeypatch.setattr(by_name, "CIFAR10", here)
    hub, local = load("cifar10", None, "train"), load("cifar10", tmp_path / "hub", "train")
    assert (hub.images == local.images).all()
    assert (hub.labels == local.labels).all()
    assert hub.class_names == local.class_names
