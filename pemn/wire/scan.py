"""Walks over the bytes of a message before protobuf reads them, and holds its counts and lengths to their limits.

Protobuf makes an object of every element of a list, and two bytes are enough for an element: a spec of 1 MiB can
hold 500,000 empty layers, which are 80 MiB once they are read. The walk keeps nothing, and ends at the first field
that is unknown, out of order, too long or one too many.

Which fields there are comes from the generated code; the tables here say how many and how long they may be.

Source: docs/wire.md, "Messages" and "Limits".
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pemn.errors import MalformedFrame
from pemn.wire import limits

_MAX_COUNT = {
    "Layer.shape": limits.MAX_DIMENSIONS,
    "FloatTensor.shape": limits.MAX_DIMENSIONS,
    "InputContract.shape": 3,
    "InputContract.mean": limits.MAX_CHANNELS,
    "InputContract.std": limits.MAX_CHANNELS,
    "InputContract.class_names": limits.MAX_CLASSES,
    "ModelSpec.layers": limits.MAX_LAYERS,
    "ModelSpec.floats": limits.MAX_FLOAT_TENSORS,
    "MaskProtocol.start_level_deltas": limits.MAX_START_LEVELS // 2,
    "FedPMProtocol.start_level_deltas": limits.MAX_START_LEVELS // 2,
    "MaskProtocol.eta_nums": limits.MAX_CHANGES,
    "MaskProtocol.strides": limits.MAX_CHANGES,
    "MaskProtocol.keeps": limits.MAX_CHANGES,
    "LocalTraining.learning_rates": limits.MAX_CHANGES,
    "Artifact.provenance": limits.MAX_PROVENANCE,
    "Artifact.start_edges": limits.MAX_START_EDGES,
}
"""Elements of every repeated field."""

_MAX_BYTES = {
    "Content.spec": limits.MAX_SPEC_BYTES,
    "Artifact.model": limits.MAX_SPEC_BYTES,
    "Artifact.floats": 4 * limits.MAX_FLOATS,
    "Artifact.ProvenanceEntry.value": limits.MAX_ERROR_TEXT_BYTES,
    "Error.text": limits.MAX_ERROR_TEXT_BYTES,
}
"""Length of a field. Other texts have MAX_TEXT_BYTES; what is not here is bounded by what holds it."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {
    FieldDescriptor.TYPE_UINT32: _VARINT,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_STRING: _LENGTH,
    FieldDescriptor.TYPE_BYTES: _LENGTH,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH,
}
_NUMBER_BYTES = {_VARINT: 5, _FIXED64: 8, _FIXED32: 4}  # at most: no varint has more than 32 bits
_NO_LIMIT = 1 << 32


class _Field(NamedTuple):
    """What may stand behind a tag.

    Attributes:
        name: For errors, with its message's.
        wire_type: How its end is found.
        max_count: How often it may be there.
        max_bytes: Its greatest length, if it says its length.
        max_varints: How many varints it may hold, if it is a list of them; else 0.
        message: The fields of the message that it holds, if it does.
    """

    name: str
    wire_type: int
    max_count: int
    max_bytes: int
    max_varints: int
    message: _Fields | None


_Fields: TypeAlias = dict[int, _Field]
"""By tag, which is the number of a field and its wire type: a field has only one that is canonical."""


def scan(message: Descriptor, data: bytes) -> None:
    """Checks the structure of a message that nobody has read yet.

    What it lets through has known fields only, in ascending order, none of them more often or longer than its limit.
    It does not look at values.

    Args:
        message: Which message it should be.
        data: Its bytes.

    Raises:
        MalformedFrame: At the first field that may not be.
    """
    _walk(_fields(message), data, 0, len(data))


@cache
def _fields(message: Descriptor) -> _Fields:
    fields = {}
    for field in message.fields:
        name = field.full_name.removeprefix(f"{message.file.package}.")
        wire_type = _WIRE_TYPES[field.type]
        max_count = _MAX_COUNT[name] if field.is_repeated else 1
        max_bytes = _MAX_BYTES.get(
            name, limits.MAX_TEXT_BYTES if field.type == field.TYPE_STRING else _NO_LIMIT
        )
        max_varints = 0
        if field.is_repeated and wire_type != _LENGTH:  # packed: once, with a length
            max_bytes = max_count * _NUMBER_BYTES[wire_type]
            max_varints = max_count if wire_type == _VARINT else 0
            wire_type, max_count = _LENGTH, 1
        inner = _fields(field.message_type) if field.message_type else None
        tag = field.number << 3 | wire_type
        fields[tag] = _Field(name, wire_type, max_count, max_bytes, max_varints, inner)
    return fields


def _walk(fields: _Fields, data: bytes, at: int, end: int) -> None:
    """Walks over `data[at:end]`, the fields of one message; recurses no deeper than the schema."""
    before = count = 0
    while at < end:
        tag, at = _read_varint(data, at, end)
        field = fields.get(tag)
        if field is None:
            raise MalformedFrame("unknown field", got=f"number {tag >> 3}, wire type {tag & 7}")
        name, wire_type, max_count, max_bytes, max_varints, inner = field
        count = count + 1 if tag == before else 1
        if tag < before:
            raise MalformedFrame("order of fields", where=name)
        if count > max_count:
            raise MalformedFrame("field too often", wanted=f"<= {max_count}", where=name)
        before = tag
        if wire_type == _VARINT:
            _, at = _read_varint(data, at, end)
            continue
        if wire_type == _LENGTH:
            size, at = _read_varint(data, at, end)
            if size > max_bytes:
                raise MalformedFrame("length of field", got=size, wanted=f"<= {max_bytes}", where=name)
        else:
            size = _NUMBER_BYTES[wire_type]
        if size > end - at:
            raise MalformedFrame("field is cut off", got=f"{end - at} bytes", wanted=size, where=name)
        if inner is not None:
            _walk(inner, data, at, at + size)
        elif max_varints:
            num_varints = sum(byte < 0x80 for byte in data[at : at + size])
            if num_varints > max_varints:
                raise MalformedFrame(
                    "numbers in field", got=num_varints, wanted=f"<= {max_varints}", where=name
                )
        at += size


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Returns the number at `at`, and where it ends."""
    value = 0
    for i in range(min(end - at, _NUMBER_BYTES[_VARINT])):
        byte = data[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if (i and not byte) or value >> 32:
                break
            return value, at + i + 1
    raise MalformedFrame(
        "varint", got=data[at : min(at + 6, end)].hex() or "no bytes", wanted="32 bits, shortest form"
    )
