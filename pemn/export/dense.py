"""Skeleton + mask -> an ordinary ONNX file with float32 weights, for any runtime."""

from __future__ import annotations

import numpy as np

from pemn.export.parts import finish, parse, tensor
from pemn.mask import Mask
from pemn.rebuild import rebuild
from pemn.spec import ModelSpec


def dense(skeleton: bytes, spec: ModelSpec, mask: Mask) -> bytes:
    """Returns an ONNX file with the rebuilt weights in it.

    Args:
        skeleton: As `pemn.export.skeleton.skeleton` made it.
        spec: The network.
        mask: Which of its weights are kept.

    Raises:
        MalformedArtifact: If the skeleton is not the network's.
        LocalError: If the mask is not.
    """
    model = parse(skeleton, spec)
    parts = np.split(rebuild(spec, mask), np.cumsum(spec.sizes)[:-1])
    model.graph.initializer.extend(
        tensor(layer.name, part.reshape(layer.shape)) for layer, part in zip(spec.layers, parts, strict=True)
    )
    return finish(model, spec.input)
