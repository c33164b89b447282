"""`pemn export`: a .pemn file as ONNX."""

from __future__ import annotations

from pathlib import Path

from pemn.artifact import Artifact
from pemn.commands.model_file import model_file
from pemn.errors import ConfigError
from pemn.export.dense import dense
from pemn.export.packed import packed
from pemn.files import write_atomic


def export(path: Path, form: str, output: Path) -> int:
    """Writes an ONNX file.

    Args:
        path: A .pemn file.
        form: `packed` or `dense`.
        output: Where to; replaced if it exists.

    Raises:
        ConfigError: If the output is the input.
        FileError: If a file cannot be read or written, or the model is damaged (`MalformedArtifact`).
    """
    if output.exists() and path.exists() and output.samefile(path):
        raise ConfigError("output would replace the model that it is made from", where=output)
    with model_file(path) as content:
        artifact = Artifact.from_bytes(content)
        data = (packed if form == "packed" else dense)(artifact)
    write_atomic(output, data)
    print(f"{output}: {len(data):,} bytes, {form} ONNX of {artifact.model.num_params:,} weights")
    return 0
