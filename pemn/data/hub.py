"""Data sets by name from the Hugging Face hub, by its `datasets` library, which keeps a copy on disk."""

from __future__ import annotations

import datasets

from pemn.data.cifar import IMAGE_COLUMN, Layout
from pemn.data.dataset import Dataset
from pemn.data.parquet import BATCH_ROWS, check_columns, decode, join
from pemn.errors import DataError


def load(layout: Layout, split: str) -> Dataset:
    """Downloads one split, or takes it from the copy on disk.

    Args:
        layout: Name, columns and class names of the data set.
        split: `train` or `test`.

    Returns:
        Images uint8 [N, 3, 32, 32], in the hub's order.

    Raises:
        DataError: If the hub cannot be reached or serves something else.
    """
    where = f"{layout.repository} on the hub"
    try:
        found = datasets.load_dataset(layout.repository, layout.config, split=split)
    except Exception as error:  # whatever the library, its HTTP client or the disk raises
        raise DataError(
            "not downloaded", got=error, wanted="a network, or --data-dir DIR", where=where
        ) from error
    feature = found.features.get(layout.label_column)
    class_names = tuple(getattr(feature, "names", layout.class_names))
    check_columns(layout, found.features.arrow_schema, where)
    # The bytes as they are in the files: one decoder for both ways in.
    rows = found.select_columns([IMAGE_COLUMN, layout.label_column])
    rows = rows.cast_column(IMAGE_COLUMN, datasets.Image(decode=False)).with_format("arrow")
    return join(layout, decode(layout, rows.iter(batch_size=BATCH_ROWS), where), class_names, where)
