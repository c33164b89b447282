"""Frames with something wrong: one function for each kind of wrong.

A mutator returns other *bytes within the seal*: the content without its check, the file without its SHA-256. A plain
mutant then gets the old seal, a resealed one a right seal, and right hashes of its flips and states.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from pemn.onnx.v1 import onnx_pb2
from pemn.wire.v1 import messages_pb2 as pb
from tests.fuzz import sequences, tree
from tests.fuzz.codes import Code, FlipsCode, MaskCode
from tests.fuzz.ends import ClientEnd, End, FileEnd, ServerEnd, StoreEnd
from tests.fuzz.seals import body, claimed_params, layout, mend, moves_code, read, seal, write
from tests.fuzz.worlds import Frame

Mutator = Callable[[Frame, Sequence[Frame], random.Random], bytes | None]
"""Takes a frame and all others; returns bytes within the seal, or none if that cannot be done to this frame."""


# Where a frame has a coded sequence.


def _sequence(frame: Frame, proto: Any) -> tuple[Message, str, Code] | None:
    """Returns the message, the name of its field, and how to read it."""
    if isinstance(frame.end, FileEnd):
        tie = max(proto.model.tie, 1)  # nobody has checked it
        sizes = tuple(-(-layer.terms * _product(layer.shape) // tie) for layer in proto.model.layers)
        return proto, "mask", MaskCode(sizes, proto.model.seed, tuple(proto.start_edges))
    if isinstance(frame.end, ServerEnd) and proto.HasField("update"):
        draw = frame.end.draw(proto.update.round)
        return (proto.update, "vote", FlipsCode(draw)) if draw else None
    if isinstance(frame.end, ClientEnd) and proto.HasField("broadcast"):
        return proto.broadcast, "change", moves_code(proto, frame.end)
    return None


def _product(shape: Sequence[int]) -> int:
    out = 1
    for size in shape:
        out *= size
    return out


def with_sequence(change: Callable[[Code, bytes, random.Random], bytes]) -> Mutator:
    def mutate(frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
        proto = read(frame, body(frame))
        if (found := _sequence(frame, proto)) is None:
            return None
        message, name, code = found
        setattr(message, name, change(code, getattr(message, name), draw))
        return write(frame, proto)

    return mutate


# Bytes.

_GRAPH_BYTES = 20_000
"""Longer graphs are for tests/fuzz/test_bounds.py: each takes as long as a hundred others."""

_MOST_CLAIMED = 1 << 20
"""Weights that a file or a spec may say it has: reading it is proportional to them, which is not what is looked for."""

Change = Callable[[bytes, bytes, random.Random], bytes]
"""Takes the bytes and those of another frame."""


def _flip_bits(data: bytes, other: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 30))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    if draw.random() < 0.3:
        changed[draw.randrange(len(changed))] = draw.choice((0, 1, 127, 128, 255))
    return bytes(changed)


def _truncate(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at, size = draw.randrange(len(data)), draw.choice((1, 1, 2, 8, len(data)))
    return data[:at] + data[at + size :]


def _extend(data: bytes, other: bytes, draw: random.Random) -> bytes:
    more = draw.choice((bytes(draw.randint(1, 9)), draw.randbytes(draw.randint(1, 40)), data, other))
    at = draw.choice((len(data), draw.randint(0, len(data))))
    return data[:at] + more + data[at:]


BYTES: dict[str, Change] = {"bit flips": _flip_bits, "truncation": _truncate, "extension": _extend}
"""What can also be done to a frame with its seal."""


def _within(change: Change) -> Mutator:
    return lambda frame, others, draw: change(body(frame), draw.choice(others).data, draw)


# Fields.


def _fields(change: Callable[[list[tree.Field], random.Random], None]) -> Mutator:
    def mutate(frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes:
        inside, of = body(frame), layout(frame)
        fields = tree.read(of.message, inside[of.head :])
        change(fields, draw)
        return inside[: of.head] + tree.write(fields)

    return mutate


def _values(names: tuple[str, ...], change: Callable[[Any, random.Random], Any]) -> Mutator:
    """Changes a field with one of these names in the spec, broadcast, update or acknowledgement of a frame."""

    def mutate(frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
        proto = read(frame, body(frame))
        messages = [proto] if isinstance(frame.end, FileEnd | StoreEnd) else _messages(proto)
        places = [(m, name) for m in messages for name in names if name in m.DESCRIPTOR.fields_by_name]
        if not places:
            return None
        message, name = draw.choice(places)
        setattr(message, name, change(getattr(message, name), draw))
        return write(frame, proto)

    return mutate


def _messages(proto: pb.Content) -> list[Any]:
    return [message for field, message in proto.ListFields() if field.name != "error"]


def _other_round(old: int, draw: random.Random) -> int:
    return draw.choice((max(old - 1, 0), old + 1, old + 2, 0, (1 << 31) - 1, 1 << 31))


def _other_run(old: int, draw: random.Random) -> int:
    return draw.choice((old ^ 1 << draw.randrange(64), 0, 1, 5))


def _other_slot(old: int, draw: random.Random) -> int:
    return draw.choice((old ^ 1, old + 1, (1 << 20) - 1, 1 << 20, (1 << 32) - 1))


def _other_hash(old: bytes, draw: random.Random) -> bytes:
    changed = bytearray(old)
    changed[draw.randrange(len(old))] ^= 1 << draw.randrange(8)
    return draw.choice((bytes(changed), bytes(changed), bytes(len(old)), old[:-1], old + b"\0", b""))


def other_network(frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
    """What another network's frame of this kind says, in the name of this frame's run, round and slot."""
    like = [f for f in others if f.kind == frame.kind and f.end.num_params != frame.end.num_params]
    if not like:
        return None
    other = draw.choice(like)
    proto, foreign = read(frame, body(frame)), read(other, body(other))
    if isinstance(frame.end, FileEnd | StoreEnd):
        foreign = draw.choice((proto, foreign))
        layer = draw.choice(foreign.model.layers)
        at = draw.randrange(len(layer.shape))
        layer.shape[at] = draw.choice((layer.shape[at] + 1, layer.shape[at] - 1, 0, 1, 1000, 1 << 28))
        return write(frame, foreign)
    for name in ("spec", "update", "broadcast", "ack", "error"):
        if proto.HasField(name) and foreign.HasField(name):
            _take_over(getattr(proto, name), getattr(foreign, name), draw)
    return write(frame, proto)


def _take_over(own: Any, foreign: Any, draw: random.Random) -> None:
    for name in ("vote", "change", "weights_sha256", "state_hash", "vote_hash", "model", "text"):
        if name in own.DESCRIPTOR.fields_by_name and draw.random() < 0.7:
            if name == "model":
                own.model.CopyFrom(foreign.model)
            else:
                setattr(own, name, getattr(foreign, name))


# The graph in a file.


def _graph(frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
    """Damages the graph, or the DEFLATE stream that it is in."""
    if not isinstance(frame.end, FileEnd):
        return None
    proto = read(frame, body(frame))
    kind = draw.choice(("stream", "fields", "fields", "bytes", "swell", "level"))
    if kind == "stream":
        change = BYTES[draw.choice(list(BYTES))]
        proto.onnx_skeleton = change(proto.onnx_skeleton, draw.choice(others).data, draw)
        return write(frame, proto)
    skeleton = zlib.decompress(proto.onnx_skeleton, wbits=-15)
    fields = tree.read(onnx_pb2.Model, skeleton)
    if kind == "fields":
        tree.misspell(fields, draw)
    elif kind == "swell":
        tree.swell(fields, draw, _GRAPH_BYTES)
    skeleton = tree.write(fields)
    if kind == "bytes":
        skeleton = BYTES[draw.choice(list(BYTES))](skeleton, b"\0" * 40_000, draw)
    deflate = zlib.compressobj(level=draw.choice((0, 1, 9)), wbits=-15)
    proto.onnx_skeleton = deflate.compress(skeleton) + deflate.flush()
    return write(frame, proto)


def _edges(frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
    """Puts the edges of a file out of order or out of range."""
    if not isinstance(frame.end, FileEnd):
        return None
    proto = read(frame, body(frame))
    edges = list(proto.start_edges) or [1]
    edges[draw.randrange(len(edges))] = draw.choice((0, 65536, edges[0], edges[-1], (1 << 32) - 1))
    proto.ClearField("start_edges")
    proto.start_edges.extend(edges)
    return write(frame, proto)


_NUMBERS = 0.0, -0.0, 1.0, 1e-45, 3.4e38, math.inf, -math.inf, math.nan
_SIZES = 0, 1, 2, 7, 1 << 12, 1 << 24, (1 << 32) - 1


def _floats(frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
    """Changes the floats of a file or what is said of them; gives some to a network that may have none."""
    proto = read(frame, body(frame))
    if not isinstance(frame.end, FileEnd):
        spec = proto if isinstance(frame.end, StoreEnd) else proto.spec
        if not spec.HasField("model"):
            return None
        spec.model.floats.add(name="bias", shape=[draw.choice(_SIZES)])
        return write(frame, proto)
    floats, told = proto.model.floats, bytearray(proto.floats)
    kind = draw.choice(("number", "number", "length", "shape", "name", "more", "fewer"))
    if kind == "number" and told:
        at = draw.randrange(len(told) // 4) * 4
        told[at : at + 4] = struct.pack("<f", draw.choice(_NUMBERS))
    elif kind == "length":
        told = told[: -draw.choice((1, 4))] if draw.random() < 0.5 else told + bytes(draw.choice((1, 4)))
    elif kind == "shape" and floats:
        shape = draw.choice(floats).shape
        shape[:] = draw.choice(([], [1], [*shape, 1], shape[::-1], [draw.choice(_SIZES)], [1] * 9, [2] * 25))
    elif kind == "name" and floats:
        draw.choice(floats).name = draw.choice(("", "gain", proto.model.layers[0].name, "x" * 257))
    elif kind == "fewer" and floats:
        del floats[draw.randrange(len(floats))]
    else:
        floats.add(name=draw.choice(("more", "gain")))
        told += bytes(draw.choice((0, 4)))
    proto.floats = bytes(told)
    return write(frame, proto)


# What there is.

KINDS: dict[str, tuple[Mutator, ...]] = {
    **{kind: (_within(change),) for kind, change in BYTES.items()},
    "wrong n": (other_network,),
    "wrong round": (_values(("round", "base_round"), _other_round),),
    "wrong run": (_values(("run_id",), _other_run),),
    "wrong slot": (_values(("slot",), _other_slot),),
    "wrong hash": (_values(("state_hash", "vote_hash", "weights_sha256"), _other_hash),),
    "non-canonical": (_fields(tree.misspell), with_sequence(sequences.respell)),
    "lying length": (_fields(tree.lie),),
    "bomb": (
        _fields(tree.swell),
        with_sequence(lambda code, data, draw: sequences.bomb(code.size, draw)),
    ),
    "graph": (_graph,),
    "wrong edges": (_edges,),
    "wrong floats": (_floats,),
    "coded sequence": (
        with_sequence(lambda code, data, draw: sequences.damage(data, draw)),
        with_sequence(sequences.rewrite),
    ),
}
"""Every kind of wrong, and the mutators that there are of it."""


def misdelivered(frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
    """Returns a valid frame that was meant for somebody else and that `frame.end` must refuse, if one is found."""
    for other in draw.sample(others, min(len(others), 20)):
        if type(other.end) is type(frame.end) and _must_be_refused(frame.end, other):
            return other.data
    return None


def _must_be_refused(end: End, other: Frame) -> bool:
    if isinstance(end, FileEnd | StoreEnd):
        return False  # say all by themselves
    proto = read(other, body(other))
    if proto.HasField("spec") or proto.HasField("error"):
        return False  # a client may join another run; a failure has no run
    message = _messages(proto)[-1]
    if isinstance(end, ServerEnd):
        now = end.state.public.round
        in_time = message.round == now if proto.HasField("ack") else now - 1 <= message.round <= now + 1
        same_run = message.run_id == end.server.spec.run_id and other.end.num_params == end.num_params
        return not (same_run and message.slot == end.slot and in_time)
    assert isinstance(end, ClientEnd)
    if end.client is None or end.state is None:
        return True
    fits = message.base_round in (0, end.state.round) or message.round == end.state.round
    same_run = message.run_id == end.client.spec.run_id and other.end.num_params == end.num_params
    return not (same_run and fits)


@dataclass(frozen=True)
class Mutant:
    """What is delivered instead of a frame.

    Attributes:
        kind: What is wrong with it, a key of `KINDS`.
        data: The bytes.
        resealed: Whether length, hashes and seal were made right again.
    """

    kind: str
    data: bytes
    resealed: bool


def mutate(frame: Frame, others: Sequence[Frame], draw: random.Random, resealed: bool) -> Mutant:
    """Makes something else of a frame.

    Args:
        frame: A valid one.
        others: All there are.
        draw: Decides all.
        resealed: Whether the mutant gets right hashes.
    """
    while True:
        kind = draw.choice(list(KINDS))
        data = _resealed(kind, frame, others, draw) if resealed else _plain(kind, frame, others, draw)
        if data is not None and data != frame.data and claimed_params(frame, data) <= _MOST_CLAIMED:
            return Mutant(kind, data, resealed)


def _plain(kind: str, frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
    if kind in BYTES and draw.random() < 0.7:
        return BYTES[kind](frame.data, draw.choice(others).data, draw)
    if kind in ("wrong n", "wrong round", "wrong run", "wrong slot") and draw.random() < 0.5:
        data = misdelivered(frame, others, draw)
        if data is not None:
            return data
    inside = draw.choice(KINDS[kind])(frame, others, draw)
    return inside and inside + frame.data[len(body(frame)) :]


def _resealed(kind: str, frame: Frame, others: Sequence[Frame], draw: random.Random) -> bytes | None:
    inside = draw.choice(KINDS[kind])(frame, others, draw)
    if inside is None:
        return None
    names = kind in ("wrong round", "wrong run", "wrong slot")
    if kind != "wrong hash" and not (names and draw.random() < 0.5):
        inside = mend(frame, inside)
    return seal(frame, inside)
