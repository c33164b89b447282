"""Artifact -> an ordinary ONNX file with float32 weights, for any runtime."""

from __future__ import annotations

from pemn.artifact import Artifact
from pemn.export.parts import finish, open_skeleton, tensor


def dense(artifact: Artifact) -> bytes:
    """Returns an ONNX file with the rebuilt weights in it.

    Raises:
        MalformedArtifact: If the artifact's skeleton is no valid ONNX, or its weights are not those that were trained.
    """
    model = open_skeleton(artifact)
    model.graph.initializer.extend(tensor(name, array) for name, array in artifact.tensors().items())
    return finish(model, artifact.model.input)
