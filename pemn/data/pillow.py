"""Image files -> pixels, by Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")


def decode_png(data: bytes, side: int) -> bytes:
    """Returns the pixels of a square RGB image.

    Args:
        data: A PNG file.
        side: Its height and width, in pixels.

    Returns:
        `side * side * 3` bytes: rows, columns, channels. Bytes rather than an array, because many are joined and an
        array each would take a third of the time.

    Raises:
        ValueError: If `data` is not such a file.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        # Known from the header: nothing of another size is unpacked.
        if image.size == (side, side) and image.mode == "RGB":
            return image.tobytes()
    except Exception as error:  # Pillow's decoders do not say what they raise
        raise ValueError(f"not a PNG image ({error})") from error
    width, height = image.size
    raise ValueError(f"{width}x{height} {image.mode}")


def read_rgb(file: Path | BinaryIO, side: int) -> NDArray[np.uint8]:
    """Reads an image file, as RGB and resized to a square.

    Transparency is dropped; the longer edge is squeezed; resizing is bilinear with antialiasing.

    Args:
        file: A PNG, JPEG, BMP or WebP file.
        side: Height and width of the result, in pixels.

    Returns:
        uint8 [3, side, side].

    Raises:
        ValueError: If the file is not such an image or has more than 8 bits a channel.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            mode = image.mode
            if not mode.startswith(("I", "F")):
                # A palette with transparent entries is only converted without a warning on the way through RGBA.
                opaque = image.convert("RGBA") if "transparency" in image.info else image
                rgb = opaque.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
                return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))
    except UnidentifiedImageError as error:  # its text is about our own objects
        raise ValueError("none of " + ", ".join(_FORMATS)) from error
    except Exception as error:  # Pillow's decoders do not say what they raise
        raise ValueError(f"not an image ({error})") from error
    raise ValueError(f"pixels of mode {mode}")
