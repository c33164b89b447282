"""Artifact -> a small ONNX file that rebuilds its weights by itself, from bits.

Standard nodes named `pemn/...` do what `pemn.rebuild` does. A runtime folds them when it opens the file, so that
inference costs the same as with a dense file. They select, and multiply once by the layer's scale: runtimes differ in
bit operators and in the overflow of integers, and some are silently wrong.

    pemn.mask       uint8      packed mask; every layer begins on a byte
    pemn.signs      uint8      packed signs of a signed prototype, 1 is negative; every stream begins on a byte
    pemn.values     float16    any other prototype, stream after stream

    mask, signs     Gather(256 x 8 table of bits), flat, split into layers or streams
    values          Where(signs, -1, 1) or Cast, cut to the layer, or repeated from its first value on
    tied masks      Xor of a layer's bits with a column of false, true, false ...: a row for each value of a tie
    weights         Where(mask, values * scale, 0), cut to the layer's values, reshaped
    sums            Where(mask, values, 0), Split into the terms, Sum of them in their order, times scale
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pemn.artifact import Artifact
from pemn.distribution import Distribution
from pemn.export.parts import finish, open_skeleton, replace, tensor
from pemn.prototype import Source
from pemn.prototype import values as prototype_values
from pemn.spec import ModelSpec

_BITS_OF_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(
    bool
)


def packed(artifact: Artifact) -> bytes:
    """Returns an ONNX file with one bit a weight and the prototype, in one bit or binary16 a value.

    Raises:
        MalformedArtifact: If the artifact's skeleton is no valid ONNX, or its weights are not those that were trained.
    """
    spec, mask, tensors = artifact.model, artifact.mask, artifact.tensors()
    model = open_skeleton(artifact.onnx_skeleton, spec)
    nodes = _Nodes()
    masks = nodes.unpack("mask", [mask.layer(index) for index in range(len(spec.layers))])
    streams = _streams(nodes, spec)
    for index, (layer, source) in enumerate(zip(spec.layers, spec.sources, strict=True)):
        values, stored = streams[source.stream]
        if source.period < layer.num_values:
            values = nodes.repeat(f"{index}/values", values, stored, source.period, layer.num_values)
        else:
            values = nodes.cut(f"{index}/values", values, stored, layer.num_values)
        scale, zero = (nodes.constant(np.array(number, np.float32)) for number in (layer.scale, 0))
        bits = nodes.untie(f"{index}/mask", masks[index], spec.bit_sizes[index], spec.tie, layer.num_values)
        if layer.terms == 1:
            frozen = nodes.add(f"{index}/frozen", "Mul", [values, scale])
            flat = nodes.add(f"{index}/masked", "Where", [bits, frozen, zero])
        else:
            kept = nodes.add(f"{index}/masked", "Where", [bits, values, zero])
            terms = nodes.cut_up(f"{index}/terms", kept, [layer.size] * layer.terms)
            flat = nodes.add(f"{index}/scaled", "Mul", [nodes.add(f"{index}/sum", "Sum", terms), scale])
        shape = nodes.constant(np.array(layer.shape, np.int64))
        nodes.add(f"{index}/shape", "Reshape", [flat, shape], output=layer.name)
    replace(model.graph.node, [*nodes.nodes, *model.graph.node])
    model.graph.initializer.extend(nodes.tensors)
    model.graph.initializer.extend(tensor(part.name, tensors[part.name]) for part in spec.floats)
    return finish(model, spec.input)


def _streams(nodes: _Nodes, spec: ModelSpec) -> dict[int, tuple[str, int]]:
    """Returns each stream as a flat float32 value, and how many elements it has: as many as the network uses."""
    used = spec.stream_lengths
    values = [
        prototype_values(spec.seed, Source(stream, count), spec.distribution, 0, count)
        for stream, count in used.items()
    ]
    if spec.distribution is not Distribution.SIGNED:
        names = nodes.split(
            "values", tensor("pemn.values", np.concatenate(values).astype(np.float16)), list(used.values())
        )
        return dict(zip(used, zip(names, used.values(), strict=True), strict=True))
    packed = [np.packbits(np.signbit(part), bitorder="little") for part in values]
    ends = [nodes.constant(np.array(sign, np.float32)) for sign in (-1, 1)]
    names = [
        nodes.add(f"signs/{number}/values", "Where", [signs, *ends])
        for number, signs in enumerate(nodes.unpack("signs", packed))
    ]
    return {stream: (name, 8 * part.size) for stream, name, part in zip(used, names, packed, strict=True)}


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
        return self.cut_up(name, flat, [8 * part.size for part in parts])

    def split(self, name: str, stored: onnx.TensorProto, sizes: Sequence[int]) -> list[str]:
        """Splits a flat tensor into float32 parts of these sizes."""
        self.tensors.append(stored)
        flat = self.add(f"{name}/float32", "Cast", [stored.name], to=onnx.TensorProto.FLOAT)
        return self.cut_up(name, flat, sizes)

    def cut_up(self, name: str, flat: str, sizes: Sequence[int]) -> list[str]:
        """Cuts a flat value into parts of these sizes."""
        outputs = [f"pemn/{name}/{i}" for i in range(len(sizes))]
        lengths = self.constant(np.array(sizes, np.int64))
        self.nodes.append(
            onnx.helper.make_node("Split", [flat, lengths], outputs, f"pemn/{name}/split", axis=0)
        )
        return outputs

    def cut(self, name: str, value: str, size: int, wanted: int) -> str:
        """Cuts a flat value of `size` elements to the first `wanted` ones."""
        if size == wanted:
            return value
        begin, end = (self.constant(np.array([edge], np.int64)) for edge in (0, wanted))
        return self.add(f"{name}/cut", "Slice", [value, begin, end])

    def untie(self, name: str, value: str, num_bits: int, tie: int, wanted: int) -> str:
        """Cuts unpacked bytes to a layer's bits, and repeats these for the values that share them."""
        bits = self.cut(name, value, -(-num_bits // 8) * 8, num_bits)
        if tie == 1:
            return bits
        inverted = self.constant((np.arange(tie) % 2 == 1)[:, None])
        rows = self.add(f"{name}/untied", "Xor", [bits, inverted])
        flat = self.add(f"{name}/flat", "Reshape", [rows, self.constant(np.array([-1], np.int64))])
        return self.cut(f"{name}/values", flat, num_bits * tie, wanted)

    def repeat(self, name: str, value: str, size: int, period: int, wanted: int) -> str:
        """Repeats the first `period` elements of a flat value of `size` until there are `wanted`."""
        rows = -(-wanted // period)
        one = self.cut(f"{name}/period", value, size, period)
        many = self.add(f"{name}/repeat", "Expand", [one, self.constant(np.array([rows, period], np.int64))])
        flat = self.add(f"{name}/flat", "Reshape", [many, self.constant(np.array([-1], np.int64))])
        return self.cut(name, flat, rows * period, wanted)
