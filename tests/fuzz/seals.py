"""What guards a frame, and making it right again around other bytes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message

from pemn.codec.bits import pack
from pemn.errors import PemnError, RemoteError
from pemn.federation.flips import Flips
from pemn.federation.levels import Levels
from pemn.federation.public import PublicState
from pemn.federation.release import decode_mask
from pemn.rebuild import rebuild, weights_sha256
from pemn.wire.limits import CHECK_BYTES, MAX_PARAMS, SHA256_BYTES
from pemn.wire.model import model_from_proto
from pemn.wire.spec import Spec
from pemn.wire.v1 import messages_pb2 as pb
from tests.fuzz.codes import FlipsCode, MovesCode, lenient
from tests.fuzz.ends import LARGEST_STATE, ClientEnd, FileEnd, ServerEnd, StoreEnd
from tests.fuzz.worlds import Frame

FILE_HEAD = b"PEMN\0\6"
_CHECK_HEAD = bytes([15 << 3 | 2, CHECK_BYTES])


@dataclass(frozen=True)
class Layout:
    """Where the message of a frame lies.

    Attributes:
        head: Bytes before it.
        seal: Bytes after it.
        message: Its class.
    """

    head: int
    seal: int
    message: type[Message]


def layout(frame: Frame) -> Layout:
    if isinstance(frame.end, FileEnd):
        return Layout(len(FILE_HEAD), SHA256_BYTES, pb.Artifact)
    if isinstance(frame.end, StoreEnd):
        return Layout(0, 0, pb.Spec)
    return Layout(0, len(_CHECK_HEAD) + CHECK_BYTES, pb.Content)


def body(frame: Frame) -> bytes:
    """Returns the bytes within the seal; a file's with its head."""
    return frame.data[: len(frame.data) - layout(frame).seal]


def seal(frame: Frame, inside: bytes) -> bytes:
    """Returns a frame with right seal."""
    if isinstance(frame.end, StoreEnd):
        return inside
    return seal_file(inside) if isinstance(frame.end, FileEnd) else seal_content(inside)


def seal_content(inside: bytes) -> bytes:
    return inside + _CHECK_HEAD + hashlib.sha256(inside).digest()[:CHECK_BYTES]


def seal_file(inside: bytes) -> bytes:
    return inside + hashlib.sha256(inside).digest()


def read(frame: Frame, inside: bytes) -> Any:
    proto = layout(frame).message()
    proto.ParseFromString(inside[layout(frame).head :])
    return proto


def write(frame: Frame, proto: Message) -> bytes:
    return body(frame)[: layout(frame).head] + proto.SerializeToString(deterministic=True)


def claimed_params(frame: Frame, data: bytes) -> int:
    """Returns how many weights a sealed file, task or spec says that its network has; 0 if it is refused for that."""
    if isinstance(frame.end, ServerEnd):
        return 0
    try:
        proto = read(frame, data[: len(data) - layout(frame).seal])
    except DecodeError:
        return 0
    return params_of(proto.model if isinstance(frame.end, FileEnd | StoreEnd) else proto.spec.model)


def params_of(model: pb.ModelSpec) -> int:
    """Returns how many weights a network has that nobody has checked; 0 if it is refused for that."""
    num_params = sum(math.prod(layer.shape) for layer in model.layers)
    return num_params if num_params <= MAX_PARAMS else 0


def mend(frame: Frame, inside: bytes) -> bytes:
    """Makes the hashes of flips and states right, if the bytes are a message and its sequence can be read at all."""
    try:
        proto = read(frame, inside)
    except DecodeError:
        return inside
    if write(frame, proto) != inside:
        return inside  # misspelt: its values are still those that were hashed
    try:
        with lenient():
            if isinstance(frame.end, FileEnd):
                _mend_file(proto)
            elif isinstance(frame.end, StoreEnd):
                return inside
            elif proto.HasField("update") and isinstance(frame.end, ServerEnd):
                _mend_update(proto.update, frame.end)
            elif proto.HasField("broadcast") and isinstance(frame.end, ClientEnd):
                _mend_broadcast(proto, frame.end)
    except PemnError:
        return inside
    return write(frame, proto)


def _mend_file(proto: pb.Artifact) -> None:
    model = model_from_proto(proto.model)
    if model.num_params <= LARGEST_STATE:
        mask = decode_mask(proto.mask, model.bit_sizes, model.seed, tuple(proto.start_edges))
        proto.weights_sha256 = weights_sha256(rebuild(model, mask))


def _mend_update(update: pb.Update, end: ServerEnd) -> None:
    draw = end.draw(update.round)
    if draw is not None:
        code = FlipsCode(draw)
        flips = Flips(replace(draw, slot=update.slot), pack(code.read(update.vote).view(np.bool_)))
        update.state_hash = PublicState(update.round - 1, draw.k).hash(update.run_id)
        update.vote_hash = flips.hash(update.state_hash)


def _mend_broadcast(proto: pb.Content, end: ClientEnd) -> None:
    code, message = moves_code(proto, end), proto.broadcast
    after = code.read(message.change)
    message.state_hash = PublicState(message.round, after).hash(message.run_id)


def moves_code(proto: pb.Content, end: ClientEnd) -> MovesCode:
    spec = end.client.spec if end.client else None
    if proto.HasField("spec"):
        spec = Spec.from_proto(proto.spec)
        if spec.model.num_params > LARGEST_STATE:
            raise RemoteError("large state")
    if spec is None:
        raise RemoteError("no state")
    start = PublicState(0, np.zeros(spec.model.num_bits, np.int8))
    known = end.state if proto.broadcast.base_round and end.state else start
    state = known if known.values.size == start.values.size else start
    return MovesCode(state.values, Levels.of(spec))
