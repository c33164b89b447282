"""A message as a tree of fields that can be written in every wrong way; protobuf's own writer has only the right."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
LIES = (0, 1, 127, 128, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)


def varint(value: int, padding: int = 0) -> bytes:
    """Returns a LEB128 number, `padding` bytes longer than it need be."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 128
        out.append(0)
    return bytes(out)


@dataclass
class Field:
    """A field as it is written.

    Attributes:
        number: Of the field.
        wire_type: Of protobuf.
        value: What stands behind the tag, without the length; of a message it is `fields` that counts.
        fields: Of the message that it holds, if it does.
        packed: Whether it is a list of numbers.
        padding: Needless bytes of tag, length and value.
        lie: Written instead of the length.
        times: How often it is written.
    """

    number: int
    wire_type: int
    value: bytes = b""
    fields: list[Field] | None = None
    packed: bool = False
    padding: tuple[int, int] = (0, 0)
    lie: int | None = None
    times: int = 1

    def write(self) -> bytes:
        tag = varint(self.number << 3 | self.wire_type, self.padding[0])
        value = self.value if self.fields is None else write(self.fields)
        if self.wire_type == VARINT and self.padding[1]:
            value = varint(read_varint(value, 0)[0], self.padding[1])
        if self.wire_type != LENGTH:
            return (tag + value) * self.times
        length = varint(len(value) if self.lie is None else self.lie, self.padding[1])
        return (tag + length + value) * self.times


def write(fields: list[Field]) -> bytes:
    """Returns the bytes of a message."""
    return b"".join(field.write() for field in fields)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number of canonical bytes and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def read(message: Message | type[Message], data: bytes) -> list[Field]:
    """Reads canonical bytes."""
    return _read(message.DESCRIPTOR, data)


def _read(message: Any, data: bytes) -> list[Field]:
    out, at = [], 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = message.fields_by_number[tag >> 3]
        wire_type, start = tag & 7, at
        if wire_type == VARINT:
            at = read_varint(data, at)[1]
        elif wire_type == LENGTH:
            size, start = read_varint(data, at)
            at = start + size
        else:
            at += 8 if wire_type == FIXED64 else 4
        value = data[start:at]
        inner = _read(kind.message_type, value) if kind.message_type else None
        packed = kind.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FLOAT) and kind.is_repeated
        out.append(Field(tag >> 3, wire_type, value, inner, packed))
    return out


def lists(fields: list[Field]) -> Iterator[list[Field]]:
    """Yields the fields of a message, and of every message within."""
    yield fields
    for each in fields:
        if each.fields is not None:
            yield from lists(each.fields)


def misspell(fields: list[Field], draw: random.Random) -> None:
    """Writes a message in a form that is not canonical, or no longer that message."""
    place = draw.choice([each for each in lists(fields) if each])
    at = draw.randrange(len(place))
    kind = draw.choice(_MISSPELLINGS)
    chosen = place[at]
    if kind == "padding":
        few = draw.choice((1, 1, 2, 9))
        chosen.padding = draw.choice(((few, 0), (0, few), (few, few)))
    elif kind == "twice":
        place.insert(draw.randint(0, len(place)), chosen)
    elif kind == "order":
        draw.shuffle(place)
    elif kind == "unknown":
        wire_type = draw.choice((0, 1, 2, 3, 4, 5, 6, 7))
        value = {VARINT: varint(draw.getrandbits(32)), FIXED64: bytes(8), FIXED32: bytes(4)}.get(
            wire_type, b"x"
        )
        number = draw.choice((draw.randint(0, 20), draw.getrandbits(29)))
        place.insert(draw.randint(0, len(place)), Field(number, wire_type, value))
    elif kind == "default":
        number = draw.randint(1, 7)
        wire_type, value = draw.choice(((VARINT, b"\0"), (LENGTH, b""), (FIXED32, bytes(4))))
        place.append(Field(number, wire_type, value))
        place.sort(key=lambda each: each.number)
    elif kind == "unpacked":
        for each in [each for each in place if each.packed]:
            index = place.index(each)
            place[index : index + 1] = list(_unpacked(each))
    elif kind == "missing":
        del place[at]
    elif kind == "number":
        chosen.value = _other_number(chosen, draw)
        chosen.fields = None
    else:
        chosen.wire_type = draw.choice((0, 1, 2, 3, 5))


_MISSPELLINGS = (
    *("padding", "padding", "twice", "order", "unknown", "default"),
    *("unpacked", "missing", "number", "number", "wire type"),
)


def _unpacked(chosen: Field) -> Iterator[Field]:
    at = 0
    while at < len(chosen.value):
        stop = read_varint(chosen.value, at)[1]
        yield Field(chosen.number, VARINT, chosen.value[at:stop])
        at = stop


def _other_number(chosen: Field, draw: random.Random) -> bytes:
    if chosen.wire_type == VARINT:
        near = read_varint(chosen.value, 0)[0] + draw.choice((-1, 1, 2))
        return varint(draw.choice((max(near, 0), draw.getrandbits(8), draw.getrandbits(34), *LIES)))
    if chosen.wire_type == FIXED32:  # 0, -0, 1, infinities, not a number, the smallest
        words = 0, 1 << 31, 0x3F800000, 0x7F800000, 0xFF800000, 0x7FC00001, 1, draw.getrandbits(32)
        return draw.choice(words).to_bytes(4, "little")
    if chosen.wire_type == FIXED64:
        return draw.choice((0, (1 << 64) - 1, draw.getrandbits(64))).to_bytes(8, "little")
    value = bytearray(chosen.value)
    texts = (
        b"\xff\xfe",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\0",
        b" ",
        b"\xe2\x98\x83",
        bytes([draw.getrandbits(7)]),
    )
    at = draw.randint(0, len(value))
    value[at : at + draw.randint(0, 2)] = draw.choice(texts)
    return bytes(value)


def lie(fields: list[Field], draw: random.Random) -> None:
    """Gives a field another length than it has; the lengths of the messages around it are right."""
    places = [each for place in lists(fields) for each in place if each.wire_type == LENGTH]
    chosen = draw.choice(places)
    size = len(replace(chosen, lie=None).write())
    chosen.lie = draw.choice((*LIES, max(size - draw.randint(1, 4), 0), size + draw.randint(1, 40)))


def swell(fields: list[Field], draw: random.Random, most_bytes: int = 300_000) -> None:
    """Makes a field, or a list of them, much larger than any limit."""
    place = draw.choice([each for each in lists(fields) if each])
    at = draw.randrange(len(place))
    chosen = place[at]
    times = draw.choice((33, 300, 5000, 70_000))
    if chosen.wire_type == LENGTH and draw.random() < 0.5:
        place[at] = Field(chosen.number, LENGTH, ((chosen.value or b"\1") * times)[:most_bytes])
        return
    if chosen.wire_type == LENGTH:
        chosen = place[at] = Field(chosen.number, LENGTH, b"" if chosen.fields else chosen.value[:2])
    chosen.times = min(times, most_bytes // len(chosen.write()))
