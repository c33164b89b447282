"""What an ONNX file holds, read without the onnx package and before a runtime opens it.

A runtime trusts what it opens: a tensor may name any file of the machine, or an address in memory, as the place of
its data. `read` therefore refuses everything that a network of PEMN does not need: data outside the file, sparse
tensors, functions, subgraphs, training graphs and operators outside the ONNX standard. One exception is the skeleton
of an artifact: its masked weights and trained floats are declared as external data at `WEIGHTS_LOCATION`, which is no
file; whoever opens a skeleton puts the rebuilt weights and the floats in their place (`check_skeleton`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pemn.errors import LocalError, MalformedArtifact
from pemn.onnx.scan import check_size
from pemn.onnx.v1 import onnx_pb2 as pb
from pemn.spec import InputContract, ModelSpec, to_float32
from pemn.wire import limits

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
CONTRACT_KEY = "pemn.input"
"""Metadata key under which an ONNX file carries its input contract, as JSON."""

WEIGHTS_LOCATION = "pemn.weights"
"""Where a skeleton says that its masked weights and floats are."""

MAX_FILE_BYTES = limits.MAX_SKELETON_BYTES + 4 * limits.MAX_PARAMS
"""The longest ONNX file: a graph and its weights as float32."""

FLOAT32 = 1
"""Number of the data type in ONNX."""

_EXTERNAL = 1
_STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Tensor:
    """A tensor that is part of the file.

    Attributes:
        name: Its name.
        shape: Its sizes.
        data_type: ONNX's number of its type.
        num_bytes: What it takes in the file.
        external: Whether it is a weight or a float of a skeleton, without data.
    """

    name: str
    shape: tuple[int, ...]
    data_type: int
    num_bytes: int
    external: bool


@dataclass(frozen=True)
class Graph:
    """The contents of a checked file.

    Attributes:
        producer: What wrote it, as it says.
        operators: Operator of each node, in order.
        tensors: Its initialisers, in order.
        input_shape: (channels, height, width).
        num_classes: Number of outputs.
        metadata: Texts that it carries.
        used: Names of the tensors that its nodes read.
    """

    producer: str
    operators: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    input_shape: tuple[int, ...]
    num_classes: int
    metadata: dict[str, str]
    used: frozenset[str]


def read(data: bytes) -> Graph:
    """Reads an ONNX file and checks that it is harmless.

    Args:
        data: The file.

    Raises:
        MalformedArtifact: If it is no ONNX file, or holds what a network of PEMN does not need.
    """
    if len(data) > MAX_FILE_BYTES:
        raise MalformedArtifact("length of an ONNX file", got=len(data), wanted=f"<= {MAX_FILE_BYTES}")
    check_size(pb.Model.DESCRIPTOR, data)
    model = pb.Model()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise MalformedArtifact("not an ONNX file", got=f"{len(data)} bytes that do not parse") from error
    if not model.graph.node:
        raise MalformedArtifact("not an ONNX file", got="no graph")
    _refuse("functions", model.functions)
    _refuse("training graphs", model.training_info)
    _refuse("sparse initialisers", model.graph.sparse_initializer)
    _refuse_domains(entry.domain for entry in model.opset_import)
    for node in model.graph.node:
        _check_node(node)
    names = [tensor.name for tensor in model.graph.initializer]
    if len(set(names)) != len(names):
        raise MalformedArtifact("two initialisers of one name in an ONNX file")
    return Graph(
        producer=model.producer_name,
        operators=tuple(node.op_type for node in model.graph.node),
        tensors=tuple(_read_tensor(tensor) for tensor in model.graph.initializer),
        input_shape=_sizes(model.graph.input, INPUT_NAME, 4),
        num_classes=_sizes(model.graph.output, OUTPUT_NAME, 2)[0],
        metadata={entry.key: entry.value for entry in model.metadata_props},
        used=frozenset(name for node in model.graph.node for name in node.input),
    )


def check_skeleton(graph: Graph, model: ModelSpec) -> None:
    """Checks that exactly the masked weights and the floats of a network are missing from a graph.

    Raises:
        MalformedArtifact: If not, or if the graph has another input or output than the network.
    """
    got = {tensor.name: tensor for tensor in graph.tensors if tensor.external}
    if wrong := sorted(got.keys() ^ model.shapes.keys()):
        raise MalformedArtifact("weights of an ONNX skeleton", got=sorted(got), where=wrong[0])
    for name, shape in model.shapes.items():
        if got[name].shape != shape or got[name].data_type != FLOAT32:
            raise MalformedArtifact(
                "weight of an ONNX skeleton", got=got[name].shape, wanted=shape, where=name
            )
    _check_ends(graph, model.input)


def contract_of(graph: Graph) -> InputContract:
    """Returns the input contract of a whole ONNX file, checked against its graph.

    Raises:
        MalformedArtifact: If it has none, a wrong one, or weights that are not in it.
    """
    if missing := [tensor.name for tensor in graph.tensors if tensor.external]:
        raise MalformedArtifact("ONNX file without its weights", where=missing[0])
    text = graph.metadata.get(CONTRACT_KEY)
    if text is None:
        raise MalformedArtifact("ONNX file that PEMN has not written", wanted=f"metadata {CONTRACT_KEY!r}")
    contract = contract_from_json(text)
    _check_ends(graph, contract)
    return contract


def contract_to_json(contract: InputContract) -> str:
    """Returns the form in which an ONNX file carries a contract."""
    parts = {
        "shape": contract.shape,
        "mean": contract.mean,
        "std": contract.std,
        "class_names": contract.class_names,
    }
    return json.dumps(parts, separators=(",", ":"), ensure_ascii=False)


def contract_from_json(text: str) -> InputContract:
    """Reads what `contract_to_json` wrote.

    Raises:
        MalformedArtifact: If it is not that, or out of bounds.
    """
    try:
        parts = json.loads(text)
        channels, height, width = (_size(size) for size in parts["shape"])
        names = tuple(parts["class_names"])
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError("class names")
        return InputContract(
            shape=(channels, height, width),
            mean=tuple(_real(value) for value in parts["mean"]),
            std=tuple(_real(value) for value in parts["std"]),
            class_names=names,
        )
    except (ValueError, TypeError, KeyError, RecursionError, LocalError) as error:
        raise MalformedArtifact(f"input contract of an ONNX file, {error!r:.200}") from error


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limits.MAX_PARAMS:
        raise ValueError(f"size {value!r:.40}")
    return value


def _real(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e30:
        raise ValueError(f"number {value!r:.40}")
    return to_float32(value)


def _refuse(what: str, found: Iterable[object]) -> None:
    if any(True for _ in found):
        raise MalformedArtifact(f"{what} in an ONNX file", wanted="none")


def _refuse_domains(domains: Iterable[str]) -> None:
    for domain in domains:
        if domain not in _STANDARD_DOMAINS:
            raise MalformedArtifact(
                "operators of another domain in an ONNX file",
                got=repr(domain[:60]),
                wanted="the ONNX standard",
            )


def _check_node(node: pb.Node) -> None:
    _refuse_domains([node.domain])
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            raise MalformedArtifact("subgraph in an ONNX file", wanted="none", where=node.name)
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise MalformedArtifact("sparse tensor in an ONNX file", wanted="none", where=node.name)
        for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
            if _read_tensor(tensor).external:
                raise MalformedArtifact("constant without data in an ONNX file", where=node.name)


def _read_tensor(tensor: pb.Tensor) -> Tensor:
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0 or math.prod(shape) > limits.MAX_PARAMS:
        raise MalformedArtifact(
            "size of a tensor in an ONNX file",
            got=shape[:8],
            wanted=f"<= {limits.MAX_PARAMS}",
            where=tensor.name,
        )
    external = tensor.data_location != 0 or len(tensor.external_data) > 0
    num_bytes = tensor.ByteSize()
    if external:
        # Compared as a list: a second entry of one key must not hide behind a harmless first.
        facts = [(entry.key, entry.value) for entry in tensor.external_data]
        wanted = [("location", WEIGHTS_LOCATION), ("length", str(4 * math.prod(shape)))]
        if tensor.data_location != _EXTERNAL or facts != wanted or tensor.raw_data:
            raise MalformedArtifact(
                "tensor with data outside of its ONNX file", wanted="none", where=tensor.name
            )
    elif math.prod(shape) > 2 * num_bytes:  # the smallest types hold two values a byte
        raise MalformedArtifact(
            "tensor without its data in an ONNX file",
            got=f"{num_bytes} bytes",
            wanted=shape,
            where=tensor.name,
        )
    return Tensor(tensor.name, shape, tensor.data_type, num_bytes, external)


def _sizes(ends: Iterable[pb.ValueInfo], name: str, rank: int) -> tuple[int, ...]:
    """Returns the sizes of a graph's only input or output after the batch."""
    found = [(end.name, end.type.tensor_type) for end in ends]
    if [end[0] for end in found] != [name]:
        raise MalformedArtifact(
            "inputs or outputs of an ONNX file", got=[end[0] for end in found], wanted=name
        )
    tensor = found[0][1]
    sizes = tuple(dim.dim_value for dim in tensor.shape.dim)
    if tensor.elem_type != FLOAT32 or len(sizes) != rank or sizes[0] != 0 or min(sizes[1:]) < 1:
        raise MalformedArtifact(
            "shape in an ONNX file",
            got=sizes,
            wanted=f"float32, a free batch and {rank - 1} sizes",
            where=name,
        )
    return sizes[1:]


def _check_ends(graph: Graph, contract: InputContract) -> None:
    got = (*graph.input_shape, graph.num_classes)
    wanted = (*contract.shape, len(contract.class_names))
    if got != wanted:
        raise MalformedArtifact("input and output of an ONNX file", got=got, wanted=wanted)
