from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from pemn.data.datasets import Dataset, load

Pixels = NDArray[np.uint8]  # [H, W, 3]
MakePng = Callable[..., bytes]
WriteShard = Callable[..., Path]


@pytest.fixture(scope="session")
def make_png() -> MakePng:
    """A PNG file and, by the same number, always the same one."""

    def make(number: int, side: int = 32, mode: str = "RGB") -> bytes:
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(out, "PNG")
        return out.getvalue()

    return make


@pytest.fixture(scope="session")
def write_shard(make_png: MakePng) -> WriteShard:
    """Writes a Parquet file as the hub serves it."""

    def write(
        path: Path,
        labels: Sequence[int | None],
        *,
        first: int = 0,
        images: Sequence[bytes | None] | None = None,
        label_column: str = "label",
        class_names: Sequence[str] | None = tuple("abcdefghij"),
        row_group_size: int = 3,
    ) -> Path:
        if images is None:
            images = [make_png(first + i) for i in range(len(labels))]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {
            "img": pa.array([{"bytes": image, "path": None} for image in images], kind),
            label_column: pa.array(labels, pa.int64()),
        }
        if label_column == "fine_label":
            columns["coarse_label"] = pa.array([0] * len(labels), pa.int64())
        table = pa.table(columns)
        if class_names is not None:
            feature = {"names": list(class_names), "_type": "ClassLabel"}
            features = {"img": {"_type": "Image"}, label_column: feature}
            if label_column == "fine_label":
                features["coarse_label"] = {"names": ["x"], "_type": "ClassLabel"}
            metadata = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": metadata})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=row_group_size)
        return path

    return write


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    """The folder with the real CIFAR-10."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data" / "cifar10"
    folder = Path(os.environ.get("PEMN_CIFAR10", beside))
    if not folder.is_dir():
        pytest.skip("CIFAR-10 is not here: set PEMN_CIFAR10 to the folder that holds plain_text")
    return folder


@pytest.fixture(scope="session")
def cifar10_test(cifar10_dir: Path) -> Dataset:
    return load("cifar10", cifar10_dir, "test")
