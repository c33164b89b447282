"""An ordinary ONNX file with float32 weights, for any runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pemn.artifact import Artifact
from pemn.export.parts import finish, open_skeleton, tensor
from pemn.spec import ModelSpec


def dense(artifact: Artifact) -> bytes:
    """Returns an ONNX file with the rebuilt weights in it.

    Raises:
        MalformedArtifact: If the artifact's skeleton is no valid ONNX, or its weights are not those that were trained.
    """
    return with_tensors(artifact.model, artifact.onnx_skeleton, artifact.tensors())


def with_tensors(spec: ModelSpec, skeleton: bytes, tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Returns an ONNX file of a network with any weights.

    Args:
        spec: The network.
        skeleton: What `pemn.export.skeleton.skeleton` returned for it.
        tensors: Every weight and float by name.

    Raises:
        MalformedArtifact: If the skeleton is of another network.
    """
    model = open_skeleton(skeleton, spec)
    model.graph.initializer.extend(tensor(name, array) for name, array in tensors.items())
    return finish(model, spec.input)
