"""Reading the model files that a user names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pemn import artifact, graph
from pemn.errors import MalformedArtifact
from pemn.files import read_bytes


@contextmanager
def model_file(path: Path) -> Iterator[bytes]:
    """Gives the contents of a .pemn or an ONNX file, unchecked, to a block whose complaints then name the file.

    Raises:
        FileError: If it cannot be read, or the block finds it wrong (`MalformedArtifact`).
    """
    data = read_bytes(path, max_bytes=max(artifact.MAX_FILE_BYTES, graph.MAX_FILE_BYTES), what="model")
    try:
        yield data
    except MalformedArtifact as error:
        raise MalformedArtifact(f"{path}: {error}") from error
