"""Counts the fields of an ONNX file before protobuf makes objects of them.

Two bytes are enough for a node: a file of a few kilobytes, deflated, could stand for millions of objects. The walk
keeps nothing. Fields that the schema in `protos/pemn/onnx` does not name count as well; they are kept as they are.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor

from pemn.errors import MalformedArtifact

MAX_FIELDS = 1 << 18
"""Of a file, those in nodes, tensors and their attributes counted in. PEMN's own networks have some hundreds."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def check_size(message: Descriptor, data: bytes) -> None:
    """Refuses a file with more fields than any network has.

    Args:
        message: What the file is.
        data: The file.

    Raises:
        MalformedArtifact: If it has more than MAX_FIELDS, or is no protobuf message.
    """
    _count(message, data, 0, len(data), 0)


def _count(message: Descriptor, data: bytes, at: int, end: int, num_fields: int) -> int:
    """Returns `num_fields` and those of a message; recurses no deeper than the schema."""
    while at < end:
        num_fields += 1
        if num_fields > MAX_FIELDS:
            raise MalformedArtifact("fields of an ONNX file", wanted=f"<= {MAX_FIELDS}")
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at, end)
            continue
        if kind == _LENGTH:
            size, at = _varint(data, at, end)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise MalformedArtifact("not an ONNX file", got=f"wire type {kind}")
        if size > end - at:
            raise MalformedArtifact("not an ONNX file", got="a field that is cut off")
        field = message.fields_by_number.get(tag >> 3)
        if kind == _LENGTH and field is not None and field.message_type is not None:
            num_fields = _count(field.message_type, data, at, at + size, num_fields)
        at += size
    return num_fields


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise MalformedArtifact("not an ONNX file", got="a number that does not end")
