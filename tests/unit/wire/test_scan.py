"""The walk before protobuf: it lets all through that is within the limits, and nothing that is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from pemn.errors import MalformedFrame
from pemn.wire import limits
from pemn.wire.checks import parse
from pemn.wire.scan import scan
from pemn.wire.v1 import messages_pb2 as pb

MOST = {
    "shape of Layer": limits.MAX_DIMENSIONS,
    "shape of InputContract": 3,
    "mean of InputContract": limits.MAX_CHANNELS,
    "std of InputContract": limits.MAX_CHANNELS,
    "class_names of InputContract": limits.MAX_CLASSES,
    "layers of ModelSpec": limits.MAX_LAYERS,
    "floats of ModelSpec": limits.MAX_FLOAT_TENSORS,
    "shape of FloatTensor": limits.MAX_DIMENSIONS,
    "start_level_deltas of MaskProtocol": limits.MAX_START_LEVELS // 2,
    "start_level_deltas of FedPMProtocol": limits.MAX_START_LEVELS // 2,
    "eta_nums of MaskProtocol": limits.MAX_CHANGES,
    "strides of MaskProtocol": limits.MAX_CHANGES,
    "keeps of MaskProtocol": limits.MAX_CHANGES,
    "learning_rates of LocalTraining": limits.MAX_CHANGES,
    "provenance of Artifact": limits.MAX_PROVENANCE,
    "start_edges of Artifact": limits.MAX_START_EDGES,
}
LONGEST = {
    "spec of Content": limits.MAX_SPEC_BYTES,
    "model of Artifact": limits.MAX_SPEC_BYTES,
    "floats of Artifact": 4 * limits.MAX_FLOATS,
    "text of Error": limits.MAX_ERROR_TEXT_BYTES,
    "value of ProvenanceEntry": limits.MAX_ERROR_TEXT_BYTES,
    **dict.fromkeys(
        [
            "name of Layer", "name of FloatTensor", "class_names of InputContract", "architecture of ModelSpec",
            "strategy of ModelSpec", "distribution of ModelSpec", "dataset of DataPlan", "partition of DataPlan",
            "key of ProvenanceEntry",
        ],
        limits.MAX_TEXT_BYTES,
    ),
}  # fmt: skip
CONTENT, ARTIFACT = pb.Content.DESCRIPTOR, pb.Artifact.DESCRIPTOR
Path = list[FieldDescriptor]


def paths(message: Descriptor) -> Iterator[Path]:
    """Every field that can be reached from a message, by the fields on the way."""
    for field in message.fields:
        yield [field]
        for inner in paths(field.message_type) if field.message_type else ():
            yield [field, *inner]


def title(path: Path) -> str:
    return f"{path[-1].name} of {path[-1].containing_type.name}"


BY_TITLE = {title(path): path for path in paths(CONTENT)}
PATHS: list[tuple[Descriptor, Path]] = [(top, path) for top in (CONTENT, ARTIFACT) for path in paths(top)]


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def wire_type(field: FieldDescriptor) -> int:
    packed = field.is_repeated and field.type in (field.TYPE_UINT32, field.TYPE_FLOAT)
    return (
        2 if packed else {field.TYPE_UINT32: 0, field.TYPE_FIXED64: 1, field.TYPE_FLOAT: 5}.get(field.type, 2)
    )


def single(field: FieldDescriptor) -> bytes:
    """One small value of a field."""
    return {
        field.TYPE_UINT32: b"\x01", field.TYPE_FIXED64: bytes(8), field.TYPE_FLOAT: bytes(4),
    }.get(field.type, b"")  # fmt: skip


def written(field: FieldDescriptor, value: bytes) -> bytes:
    kind = wire_type(field)
    return varint(field.number << 3 | kind) + (varint(len(value)) if kind == 2 else b"") + value


def times(field: FieldDescriptor, count: int) -> bytes:
    """A field with so many elements."""
    if field.is_repeated and single(field):
        return written(field, single(field) * count)
    return written(field, single(field)) * count


def within(path: Path, body: bytes) -> bytes:
    """Wraps bytes into the messages that a path leads through."""
    for field in reversed(path[:-1]):
        body = written(field, body)
    return body


@pytest.mark.parametrize(("top", "path"), PATHS, ids=lambda v: title(v) if isinstance(v, list) else "")
def test_no_field_more_often_than_its_limit(top: Descriptor, path: Path) -> None:
    most = MOST[title(path)] if path[-1].is_repeated else 1
    scan(top, within(path, times(path[-1], most)))
    with pytest.raises(MalformedFrame, match=f"{path[-1].containing_type.name}.{path[-1].name}$"):
        scan(top, within(path, times(path[-1], most + 1)))


@pytest.mark.parametrize(("top", "path"), PATHS, ids=lambda v: title(v) if isinstance(v, list) else "")
def test_no_field_longer_than_its_limit(top: Descriptor, path: Path) -> None:
    if path[-1].type == FieldDescriptor.TYPE_STRING or title(path) in LONGEST:
        longest = LONGEST[title(path)]
        if path[-1].message_type is None:
            scan(top, within(path, written(path[-1], b"x" * longest)))
        with pytest.raises(MalformedFrame, match="length of field"):
            scan(top, within(path, written(path[-1], b"x" * (longest + 1))))


@pytest.mark.parametrize(("top", "path"), PATHS, ids=lambda v: title(v) if isinstance(v, list) else "")
def test_no_other_wire_type_and_no_other_number(top: Descriptor, path: Path) -> None:
    scan(top, within(path, times(path[-1], 1)))
    for kind in set(range(8)) - {wire_type(path[-1])}:
        with pytest.raises(MalformedFrame, match="unknown field"):
            scan(top, within(path, varint(path[-1].number << 3 | kind) + bytes(8)))
    for number in (0, 14, 16, 1 << 28):
        with pytest.raises(MalformedFrame, match="unknown field"):
            scan(top, within(path, varint(number << 3 | 2) + b"\x00"))


@pytest.mark.parametrize(("top", "path"), PATHS, ids=lambda v: title(v) if isinstance(v, list) else "")
def test_no_field_that_is_cut_off(top: Descriptor, path: Path) -> None:
    whole = times(path[-1], 1) + b"xyz" * (path[-1].type == FieldDescriptor.TYPE_BYTES)
    for length in range(1, len(times(path[-1], 1))):
        with pytest.raises(MalformedFrame):
            scan(top, within(path, whole[:length]))


@pytest.mark.parametrize(
    "data",
    [
        b"\xaa\x00\x00",  # tag of `error` in two bytes
        b"\x2a\x80\x00",  # its length 0 in two
        b"\x2a\x02\x08\x80",  # a number without an end
        b"\x2a\x03\x08\x81\x00",  # 1 in two bytes
        b"\x2a\x06\x08\x80\x80\x80\x80\x10",  # 2^32
        b"\x2a\x07\x08\xff\xff\xff\xff\xff\x01",  # six bytes
    ],
)
def test_only_the_shortest_varints_of_32_bits(data: bytes) -> None:
    scan(CONTENT, b"\x2a\x06\x08\xff\xff\xff\xff\x0f")
    with pytest.raises(MalformedFrame, match=r"varint: got [0-9a-f]+; wanted 32 bits"):
        scan(CONTENT, data)


def test_no_field_reaches_into_the_message_around_it() -> None:
    error, text = CONTENT.fields_by_name["error"], pb.Error.DESCRIPTOR.fields_by_name["text"]
    whole, after = written(text, b"12345"), bytes([15 << 3 | 2, 1, 0])
    scan(CONTENT, written(error, whole) + after)
    with pytest.raises(MalformedFrame, match=r"field is cut off: got 4 bytes; wanted 5; in Error\.text"):
        scan(CONTENT, written(error, whole[:-1]) + after)


@pytest.mark.parametrize("number", [1, 127, 128, 1 << 14, 1 << 28, (1 << 32) - 1])
def test_numbers_of_a_list_are_counted_whatever_their_length(number: int) -> None:
    path = BY_TITLE["start_level_deltas of MaskProtocol"]
    most = limits.MAX_START_LEVELS // 2
    scan(CONTENT, within(path, written(path[-1], varint(number) * most)))
    with pytest.raises(MalformedFrame):
        scan(CONTENT, within(path, written(path[-1], varint(number) * (most + 1))))


def test_fields_are_in_order() -> None:
    code, text = written(pb.Error.DESCRIPTOR.fields[0], b"\x01"), written(pb.Error.DESCRIPTOR.fields[1], b"x")
    scan(pb.Error.DESCRIPTOR, code + text)
    with pytest.raises(MalformedFrame, match=r"order of fields: in Error\.code"):
        scan(pb.Error.DESCRIPTOR, text + code)


VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.TYPE_STRING: st.text(max_size=60),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=300),
}


@st.composite
def protos(draw: st.DrawFn, message: type[Message]) -> Message:
    """Any message, as far as lists go up to three elements."""
    proto = message()
    fill(draw, proto)
    return proto


def fill(draw: st.DrawFn, proto: Any) -> None:
    for field in proto.DESCRIPTOR.fields:
        value = getattr(proto, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            value.update(draw(st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3)))
        elif field.is_repeated:
            for _ in range(draw(st.integers(0, 3))):
                if field.message_type:
                    fill(draw, value.add())
                else:
                    value.append(draw(VALUES[field.type]))
        elif field.message_type:
            if draw(st.booleans()):
                value.SetInParent()
                fill(draw, value)
        else:
            setattr(proto, field.name, draw(VALUES[field.type]))


@given(st.sampled_from([pb.Content, pb.Artifact]).flatmap(protos))
def test_all_that_protobuf_writes_goes_through(proto: Message) -> None:
    again = type(proto)()
    parse(again, proto.SerializeToString(deterministic=True))
    assert again.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)


BOMB_FIELDS = (
    "layers of ModelSpec",
    "floats of ModelSpec",
    "class_names of InputContract",
    "start_level_deltas of MaskProtocol",
    "eta_nums of MaskProtocol",
    "learning_rates of LocalTraining",
)
BOMBS = [within(path, times(path[-1], 500_000)) for path in map(BY_TITLE.__getitem__, BOMB_FIELDS)]


@pytest.mark.parametrize("bomb", BOMBS, ids=BOMB_FIELDS)
def test_protobuf_does_not_see_a_bomb(bomb: bytes) -> None:
    class Unread:
        DESCRIPTOR = CONTENT

        def ParseFromString(self, data: bytes) -> None:  # noqa: N802
            pytest.fail("was parsed")

    unread: Any = Unread()
    with pytest.raises(MalformedFrame):
        parse(unread, bomb)


LARGEST = f"""
import sys
from pemn.errors import RemoteError
from pemn.wire.messages import Broadcast, Content, decode, encode
from pemn.wire.spec import Spec
from pemn.wire.v1 import messages_pb2 as pb
from tests.networks import model_spec, run_spec

proto = run_spec(model_spec((9, 13), (10, 9))).to_proto()
del proto.model.layers[:], proto.model.input.class_names[:]
for i in range({limits.MAX_LAYERS}):
    proto.model.layers.add(name=f"{{i:04x}}", shape=[1] * {limits.MAX_DIMENSIONS}, scale=1, terms=1)
proto.mask.step = 512
for changes in (proto.mask.eta_nums, proto.mask.strides, proto.mask.keeps, proto.training.learning_rates):
    del changes[:]
    for i in range({limits.MAX_CHANGES}):
        changes.add(from_round=i + 1, value=i % 2 + 1)
num_floats = int(sys.argv[1])
for i in range(num_floats):
    proto.model.floats.add(name=f"{{i:04x}}.", shape=[1] * {limits.MAX_DIMENSIONS})
# A character of four bytes makes a Python text of four bytes a character.
name = chr(0x1F600) + "x" * (16 if num_floats else 20)
proto.model.input.class_names.extend([name] * {limits.MAX_CLASSES})
content = Content(broadcast=Broadcast(1, 0, 1, bytes(16), b"x")).to_proto()
content.spec.CopyFrom(proto)
sys.stdout.buffer.write(content.SerializeToString(deterministic=True))
"""
PEAK = """
import hashlib, re, sys
from pathlib import Path
from pemn.errors import RemoteError
from pemn.wire.messages import decode

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

body = sys.stdin.buffer.read()
data = body + bytes([15 << 3 | 2, 8]) + hashlib.sha256(body).digest()[:8]
Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
before = peak_kib()
try:
    kept = decode(data)
except RemoteError:
    print("refused")
else:
    print("read")
print(peak_kib() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("body", "max_kib", "outcome"),
    [
        *((bomb, 1024, "refused") for bomb in BOMBS),
        (0, limits.MAX_SPEC_BYTES * 16 // 1024, "read"),
        (limits.MAX_FLOAT_TENSORS, limits.MAX_SPEC_BYTES * 16 // 1024, "refused"),
    ],
    ids=[*BOMB_FIELDS, "largest", "largest, with floats"],
)
def test_the_memory_of_the_worst(body: bytes | int, max_kib: int, outcome: str) -> None:
    if isinstance(body, int):
        command = [sys.executable, "-c", LARGEST, str(body)]
        body = subprocess.run(command, capture_output=True, check=True).stdout
        assert len(body) > 0.9 * limits.MAX_SPEC_BYTES
    ran = subprocess.run([sys.executable, "-c", PEAK], input=body, capture_output=True, check=True)
    told, kib = ran.stdout.decode().split()
    assert told == outcome
    assert int(kib) <= max_kib
