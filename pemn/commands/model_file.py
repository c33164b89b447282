"""Reading the model files that a user names."""

from __future__ import annotations

from pathlib import Path

from pemn import artifact, graph
from pemn.files import read_bytes


def read_model_file(path: Path) -> bytes:
    """Returns the contents of a .pemn or an ONNX file, unchecked.

    Raises:
        FileError: If it cannot be read.
    """
    return read_bytes(path, max_bytes=max(artifact.MAX_FILE_BYTES, graph.MAX_FILE_BYTES), what="model")
