"""Image files -> pixels of the shape that a model wants."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pemn.data.extras import provided_by
from pemn.errors import DataError
from pemn.files import read_bytes

_MAX_FILE_BYTES = 1 << 28
_GREY = np.array([299, 587, 114], np.uint32)  # thousandths of red, green and blue (ITU-R BT.601)


def read_images(paths: Sequence[Path], shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], list[str]]:
    """Reads image files: PNG, JPEG, BMP and WebP, made square, or .npy arrays of just the right shape.

    Args:
        paths: At least one file. An .npy file may hold one image [C, H, W] or many [N, C, H, W], uint8.
        shape: (channels, height, width) that the model wants.

    Returns:
        uint8 [N, channels, height, width] and the name of each image.

    Raises:
        DataError: If a file is no image or does not fit.
        FileError: If a file cannot be read.
    """
    images: list[NDArray[np.uint8]] = []
    names: list[str] = []
    for path in paths:
        if path.suffix.lower() == ".npy":
            found = _read_array(path, shape)
            names += [path.name] if len(found) == 1 else [f"{path.name} {i}" for i in range(len(found))]
        else:
            found = _read_picture(path, shape)[None]
            names.append(path.name)
        images.append(found)
    return np.concatenate(images), names


def _read_array(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    data = read_bytes(path, max_bytes=_MAX_FILE_BYTES, what="image")
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"not an .npy file, {error}", where=path) from error
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.uint8
        or array.shape[-3:] != shape
        or array.ndim > 4
    ):
        got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError("images do not fit the network", got=got, wanted=f"uint8 {list(shape)}", where=path)
    images: NDArray[np.uint8] = array.reshape(-1, *shape)
    return images


def _read_picture(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    channels, height, width = shape
    if channels not in (1, 3) or height != width:
        raise DataError("model that takes no pictures", got=list(shape), wanted="an .npy file", where=path)
    with provided_by("data"):
        from pemn.data.pillow import read_rgb
    data = read_bytes(path, max_bytes=_MAX_FILE_BYTES, what="image")
    try:
        rgb = read_rgb(io.BytesIO(data), height)
    except ValueError as error:
        raise DataError("unreadable image", got=error, wanted="8-bit image", where=path) from error
    if channels == 3:
        return rgb
    grey = np.tensordot(_GREY, rgb.astype(np.uint32), axes=1) + 500
    return (grey // 1000).astype(np.uint8)[None]
