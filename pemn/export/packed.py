"""Skeleton + mask -> a small ONNX file that rebuilds its weights by itself, from bits.

Standard nodes named `pemn/...` do what `pemn.rebuild` does. A runtime folds them when it opens the file, so that
inference costs the same as with a dense file. They select and never compute: runtimes differ in bit operators and in
the overflow of integers, and some are silently wrong.

    pemn.mask     uint8    packed mask; every layer begins on a byte
    pemn.signs    uint8    packed signs of the prototype, 1 is negative; every stream begins on a byte

    both          Gather(256 x 8 table of bits), flat, split into layers or streams
    signs         cut to the layer, or repeated from its first weight on where the prototype is shorter
    weights       Where(mask, Where(signs, -scale, scale), 0), cut to the layer's size, reshaped
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pemn.errors import LocalError
from pemn.export.parts import finish, parse, replace, tensor
from pemn.mask import Mask
from pemn.prototype import Source, values
from pemn.spec import ModelSpec

_BITS_OF_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(
    bool
)


def packed(skeleton: bytes, spec: ModelSpec, mask: Mask) -> bytes:
    """Returns an ONNX file with one bit a weight and one a value of the prototype.

    Args:
        skeleton: As `pemn.export.skeleton.skeleton` made it.
        spec: The network.
        mask: Which of its weights are kept.

    Raises:
        MalformedArtifact: If the skeleton is not the network's.
        LocalError: If the mask is not.
    """
    if mask.sizes != spec.sizes:
        raise LocalError("mask of another network", got=mask.sizes, wanted=spec.sizes)
    model = parse(skeleton, spec)
    nodes = _Nodes()
    masks = nodes.unpack("mask", [mask.layer(index) for index in range(len(spec.layers))])
    packed_signs = _packed_signs(spec)
    streams = dict(zip(packed_signs, nodes.unpack("signs", list(packed_signs.values())), strict=True))
    for index, (layer, source) in enumerate(zip(spec.layers, spec.sources, strict=True)):
        whole = -(-layer.size // 8) * 8
        stored = packed_signs[source.stream].size * 8
        signs = streams[source.stream]
        if source.period < layer.size:
            signs = nodes.repeat(f"{index}/signs", signs, stored, source.period, whole)
        else:
            signs = nodes.cut(f"{index}/signs", signs, stored, whole)
        scales = [nodes.constant(np.array(scale, np.float32)) for scale in (-layer.scale, layer.scale)]
        frozen = nodes.add(f"{index}/frozen", "Where", [signs, *scales])
        zero = nodes.constant(np.array(0, np.float32))
        kept = nodes.add(f"{index}/masked", "Where", [masks[index], frozen, zero])
        flat = nodes.cut(f"{index}/weights", kept, whole, layer.size)
        shape = nodes.constant(np.array(layer.shape, np.int64))
        nodes.add(f"{index}/shape", "Reshape", [flat, shape], output=layer.name)
    replace(model.graph.node, [*nodes.nodes, *model.graph.node])
    model.graph.initializer.extend(nodes.tensors)
    return finish(model, spec.input)


def _packed_signs(spec: ModelSpec) -> dict[int, NDArray[np.uint8]]:
    """Returns the signs of as many values of each stream as the network uses."""
    used: dict[int, int] = {}
    for source, size in zip(spec.sources, spec.sizes, strict=True):
        used[source.stream] = max(used.get(source.stream, 0), min(source.period, size))
    signs = {}
    for stream, count in used.items():
        prototype = values(spec.seed, Source(stream, count), count)
        if not np.all(np.abs(prototype) == 1):
            raise LocalError("prototype that is not made of signs", where=f"stream {stream}")
        signs[stream] = np.packbits(np.signbit(prototype), bitorder="little")
    return signs


class _Nodes:
    """The nodes and constants that rebuild the weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(
        self, name: str, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any
    ) -> str:
        """Adds a node and returns the name of its output, which is the node's unless given."""
        name = f"pemn/{name}"
        output = output or name
        self.nodes.append(onnx.helper.make_node(operator, inputs, [output], name, **attributes))
        return output

    def constant(self, array: NDArray[np.generic], name: str = "") -> str:
        """Returns the name of an initialiser with these contents; equal ones are stored once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = name or f"pemn.{len(self.tensors)}"
            self.tensors.append(tensor(self._constants[key], array))
        return self._constants[key]

    def unpack(self, name: str, parts: Sequence[NDArray[np.uint8]]) -> list[str]:
        """Unpacks bytes into bits; returns one value, bool [8 * bytes], a part."""
        stored = tensor(f"pemn.{name}", np.concatenate(parts))
        self.tensors.append(stored)
        # Gather takes indices of 32 or 64 bits only.
        index = self.add(f"{name}/index", "Cast", [stored.name], to=onnx.TensorProto.INT32)
        table = self.constant(_BITS_OF_BYTES, "pemn.bits_of_bytes")
        rows = self.add(f"{name}/rows", "Gather", [table, index], axis=0)
        flat = self.add(f"{name}/bits", "Reshape", [rows, self.constant(np.array([-1], np.int64))])
        outputs = [f"pemn/{name}/{i}" for i in range(len(parts))]
        sizes = self.constant(np.array([8 * part.size for part in parts], np.int64))
        split = onnx.helper.make_node("Split", [flat, sizes], outputs, f"pemn/{name}/split", axis=0)
        self.nodes.append(split)
        return outputs

    def cut(self, name: str, value: str, size: int, wanted: int) -> str:
        """Cuts a flat value of `size` elements to the first `wanted` ones."""
        if size == wanted:
            return value
        begin, end = (self.constant(np.array([edge], np.int64)) for edge in (0, wanted))
        return self.add(f"{name}/cut", "Slice", [value, begin, end])

    def repeat(self, name: str, value: str, size: int, period: int, wanted: int) -> str:
        """Repeats the first `period` elements of a flat value of `size` until there are `wanted`."""
        rows = -(-wanted // period)
        one = self.cut(f"{name}/period", value, size, period)
        many = self.add(f"{name}/repeat", "Expand", [one, self.constant(np.array([rows, period], np.int64))])
        flat = self.add(f"{name}/flat", "Reshape", [many, self.constant(np.array([-1], np.int64))])
        return self.cut(name, flat, rows * period, wanted)
