"""`pemn verify`: is the file whole, and does it rebuild the weights that it promises and predict?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pemn.artifact import MAGIC, Artifact
from pemn.commands.model_file import model_file
from pemn.device.model import Model
from pemn.errors import ConfigError, MalformedArtifact

_NUM_PROBES = 4


def verify(path: Path) -> int:
    """Checks a .pemn file and says what was checked.

    Raises:
        FileError: If the file cannot be read, or anything in it is wrong (`MalformedArtifact`).
    """
    with model_file(path) as data:
        if not data.startswith(MAGIC):
            raise MalformedArtifact("not a .pemn file, and no other has hashes to verify")
        artifact = Artifact.from_bytes(data)
        artifact.weights()  # compares their hash
        shape = (_NUM_PROBES, *artifact.model.input.shape)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        logits, compared = _finite_logits(data, images), _compare(artifact, images)
    print(f"checksum of the file          ok   {len(data):,} bytes")
    kept = artifact.values_mask().num_kept
    print(f"mask fits the network         ok   {kept:,} of {artifact.model.num_values:,} values kept")
    print(f"ONNX skeleton fits the spec   ok   {len(artifact.model.layers)} masked layers")
    print(f"rebuilt weights               ok   sha256 {artifact.weights_sha256.hex()}")
    print(f"logits of {_NUM_PROBES} probe images      ok   {logits.size} finite numbers")
    print(f"packed and dense ONNX         {compared}")
    return 0


def _finite_logits(data: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    logits = Model.load(data).predict(images)
    if not np.isfinite(logits).all():
        raise MalformedArtifact("logits of a probe image", got="one that is not finite")
    return logits


def _compare(artifact: Artifact, images: NDArray[np.uint8]) -> str:
    """Returns how the two exports compare, which take a package that a device need not have.

    Raises:
        MalformedArtifact: If they do not predict the same, to the bit.
    """
    try:
        from pemn.export.dense import dense
        from pemn.export.packed import packed
    except ConfigError:
        return "-    not compared: that takes pip install 'pemn[server]'"
    logits = [_finite_logits(export(artifact), images) for export in (packed, dense)]
    difference = float(np.abs(logits[0] - logits[1]).max())
    if difference:
        raise MalformedArtifact(
            "logits of the packed ONNX file", got=f"{difference} beside the dense one's", wanted="0"
        )
    return "ok   the same logits, to the bit"
