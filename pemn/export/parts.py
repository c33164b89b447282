"""What ONNX files of PEMN are put together from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pemn import graph
from pemn.errors import MalformedArtifact
from pemn.spec import InputContract, ModelSpec

PRODUCER = "pemn"


def tensor(name: str, values: NDArray[np.generic]) -> onnx.TensorProto:
    """Returns an initialiser with its data."""
    return numpy_helper.from_array(values, name)


def tensor_without_data(name: str, shape: Sequence[int]) -> onnx.TensorProto:
    """Returns the declaration of a float32 tensor whose data is elsewhere."""
    declared = onnx.TensorProto(
        name=name,
        dims=shape,
        data_type=onnx.TensorProto.FLOAT,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    declared.external_data.add(key="location", value=graph.WEIGHTS_LOCATION)
    declared.external_data.add(key="length", value=str(4 * math.prod(shape)))
    return declared


def open_skeleton(skeleton: bytes, spec: ModelSpec) -> onnx.ModelProto:
    """Reads a network's skeleton and takes the declarations without data out.

    Raises:
        MalformedArtifact: If it is the skeleton of another network.
    """
    graph.check_skeleton(graph.read(skeleton), spec)
    model = onnx.load_model_from_string(skeleton)
    shapes = spec.shapes
    replace(model.graph.initializer, [t for t in model.graph.initializer if t.name not in shapes])
    return model


def finish(model: onnx.ModelProto, contract: InputContract) -> bytes:
    """Adds the input contract to a model and returns the file.

    Raises:
        MalformedArtifact: If the model is no valid ONNX, because its skeleton was not.
    """
    del model.metadata_props[:]
    model.metadata_props.add(key=graph.CONTRACT_KEY, value=graph.contract_to_json(contract))
    model.producer_name = PRODUCER
    data = model.SerializeToString(deterministic=True)
    try:
        onnx.checker.check_model(data, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise MalformedArtifact(f"ONNX skeleton of a network, {error}") from error
    return data


def replace(field: object, values: Sequence[object]) -> None:
    """Replaces the elements of a repeated field of a message."""
    kept = list(values)  # they may be views of the field
    del field[:]  # type: ignore[attr-defined]
    field.extend(kept)  # type: ignore[attr-defined]
