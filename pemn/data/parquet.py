"""Parquet files as the Hugging Face hub serves image data sets, by pyarrow.

An image is `struct<bytes: binary, path: string>` whose `bytes` are a PNG file, a label an integer. The class names
stand in the schema's metadata, under `huggingface`: JSON with `info.features.COLUMN.names`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pemn.data.cifar import IMAGE_COLUMN, SIDE, Layout
from pemn.data.dataset import Dataset
from pemn.data.pillow import decode_png
from pemn.errors import DataError

BATCH_ROWS = 1000
"""Rows that are decoded at a time: 3 MB of pixels."""

_SHARD = re.compile(r".+-([0-9]+)-of-([0-9]+)\.parquet")

Rows = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load(layout: Layout, data_dir: Path, split: str) -> Dataset:
    """Reads every shard of a split.

    Args:
        layout: Columns, class names and folder of the data set.
        data_dir: The folder that holds the Parquet files or their config folder.
        split: `train` or `test`.

    Returns:
        Images uint8 [N, 3, 32, 32], in the order of the shards and their rows.

    Raises:
        DataError: If a shard is missing, corrupt or has other columns, or an image or label cannot be used; it names
            the file, and the row from 0.
    """
    shards = find_shards(layout, data_dir, split)
    names: set[tuple[str, ...]] = set()
    parts: list[Rows] = []
    for path in shards:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                names.add(_class_names(layout, file.schema_arrow))
                check_columns(layout, file.schema_arrow, path)
                columns = [IMAGE_COLUMN, layout.label_column]
                parts += decode(layout, file.iter_batches(BATCH_ROWS, columns=columns), path)
        except (pa.ArrowException, OSError) as error:
            raise DataError("unreadable Parquet file", got=error, where=path) from error
    if len(names) > 1:
        raise DataError("shards with different class names", where=shards[0].parent)
    return join(layout, parts, names.pop(), shards[0].parent)


def find_shards(layout: Layout, data_dir: Path, split: str) -> list[Path]:
    """Returns the Parquet files of a split, in order.

    Raises:
        DataError: If there are none, or not all that their names promise.
    """
    if not data_dir.is_dir():
        raise DataError("no such folder", wanted=f"the Parquet files of {layout.name}", where=data_dir)
    for folder in (data_dir / layout.config, data_dir):
        shards = sorted(folder.glob(f"{split}-*.parquet"))
        if not shards:
            continue
        numbers = [(int(m[1]), int(m[2])) for path in shards if (m := _SHARD.fullmatch(path.name))]
        if numbers and numbers != [(i, len(shards)) for i in range(len(shards))]:
            raise DataError(
                "incomplete set of Parquet files",
                got=", ".join(path.name for path in shards[:3]),
                wanted=f"all {numbers[0][1]} shards and no others",
                where=folder,
            )
        return shards
    raise DataError(
        "no Parquet files", wanted=f"{split}-*.parquet there or in {layout.config}", where=data_dir
    )


def check_columns(layout: Layout, schema: pa.Schema, where: object) -> None:
    """Checks the columns that are read.

    Raises:
        DataError: If one is missing or has another type.
    """
    kinds = {field.name: field.type for field in schema}
    image, label = kinds.get(IMAGE_COLUMN), kinds.get(layout.label_column)
    if image is not None and pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        kind = image.field("bytes").type
        if (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) and (
            label is not None and pa.types.is_integer(label)
        ):
            return
    raise DataError(
        f"columns of {layout.name}",
        got=", ".join(f"{name} {kind}" for name, kind in kinds.items()),
        wanted=f"{IMAGE_COLUMN} struct<bytes: binary>, {layout.label_column} int64",
        where=where,
    )


def decode(layout: Layout, batches: Iterable[pa.RecordBatch | pa.Table], where: object) -> list[Rows]:
    """Decodes rows.

    Args:
        layout: Columns and number of classes.
        batches: Rows with the columns that `check_columns` accepts.
        where: File that they come from, for messages.

    Returns:
        For every batch: images uint8 [N, 3, 32, 32] and labels int64 [N].

    Raises:
        DataError: If an image or label cannot be used; it names the row, from 0.
    """
    parts: list[Rows] = []
    row = 0
    for batch in batches:
        pixels = []
        for data in pc.struct_field(batch[IMAGE_COLUMN], "bytes").to_pylist():
            try:
                pixels.append(decode_png(b"" if data is None else data, SIDE))
            except ValueError as error:
                raise DataError(
                    "unusable image",
                    got=error,
                    wanted=f"{SIDE}x{SIDE} RGB as PNG",
                    where=f"{where}, row {row + len(pixels)}",
                ) from error
        for offset, label in enumerate(batch[layout.label_column].to_pylist()):
            if label is None or not 0 <= label < len(layout.class_names):
                raise DataError(
                    "label out of range",
                    got=label,
                    wanted=f"0 .. {len(layout.class_names) - 1}",
                    where=f"{where}, row {row + offset}",
                )
        labels = batch[layout.label_column].to_numpy().astype(np.int64)
        interleaved = np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, SIDE, SIDE, 3)
        parts.append((np.ascontiguousarray(interleaved.transpose(0, 3, 1, 2)), labels))
        row += len(pixels)
    return parts


def join(layout: Layout, parts: list[Rows], class_names: tuple[str, ...], where: object) -> Dataset:
    """Returns the data set that decoded rows make up.

    Raises:
        DataError: If there are no rows or the class names are not as many as the layout's.
    """
    if len(class_names) != len(layout.class_names):
        raise DataError(
            f"classes of {layout.name}", got=len(class_names), wanted=len(layout.class_names), where=where
        )
    if not parts:
        raise DataError("no rows", where=where)
    images, labels = zip(*parts, strict=True)
    return Dataset(layout.name, np.concatenate(images), np.concatenate(labels), class_names)


def _class_names(layout: Layout, schema: pa.Schema) -> tuple[str, ...]:
    try:
        entry = json.loads(schema.metadata[b"huggingface"])
        return tuple(str(name) for name in entry["info"]["features"][layout.label_column]["names"])
    except (KeyError, TypeError, ValueError):  # no metadata, or not the hub's
        return layout.class_names
