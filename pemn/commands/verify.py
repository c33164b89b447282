"""`pemn verify`: is the file whole, and does it rebuild the weights that it promises?"""

from __future__ import annotations

from pathlib import Path

from pemn.artifact import Artifact
from pemn.commands.model_file import read_model_file


def verify(path: Path) -> int:
    """Checks a .pemn file and says what was checked.

    Raises:
        FileError: If the file cannot be read, or anything in it is wrong (`MalformedArtifact`).
    """
    data = read_model_file(path)
    artifact = Artifact.from_bytes(data)
    weights = artifact.weights()
    print(f"checksum of the file          ok   {len(data):,} bytes")
    print(f"mask fits the network         ok   {artifact.mask.num_kept:,} of {weights.size:,} weights kept")
    print(f"ONNX skeleton fits the spec   ok   {len(artifact.model.layers)} masked layers")
    print(f"rebuilt weights               ok   sha256 {artifact.weights_sha256.hex()}")
    return 0
