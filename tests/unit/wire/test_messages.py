"""Messages: what is written reads back, and nothing else is read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemn.errors import MalformedFrame, RemoteError, WrongProtocol
from pemn.wire import limits
from pemn.wire.messages import (
    Ack,
    Broadcast,
    Content,
    Failure,
    Metrics,
    Update,
    decode,
    encode,
    num_bytes_by_kind,
)
from pemn.wire.spec import Spec
from pemn.wire.v1 import messages_pb2 as pb
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((9, 13), (10, 9)))
RUN = 2**64 - 3
HASH, SHA = bytes(range(16)), bytes(range(32))
ROUND, U32 = st.integers(0, limits.MAX_ROUND), st.integers(0, 2**32 - 1)
IDS = st.integers(0, 2**64 - 1)
SLOT = st.integers(0, limits.MAX_SLOTS - 1)
BROADCASTS = st.builds(
    lambda run, a, b, hash_, moves: Broadcast(run, min(a, b), max(a, b), hash_, moves if a != b else b""),
    IDS, ROUND, ROUND, st.binary(min_size=16, max_size=16), st.binary(max_size=50),
)  # fmt: skip
UPDATES = st.builds(
    Update, IDS, ROUND, SLOT, st.binary(min_size=16, max_size=16), st.binary(min_size=1, max_size=50),
    st.builds(Metrics, U32, U32, U32),
)  # fmt: skip
ACKS = st.builds(
    Ack, IDS, ROUND, SLOT, st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)
)
FAILURES = st.builds(Failure, U32, st.text(max_size=200))
CONTENTS = st.one_of(
    st.builds(lambda b, s: Content(spec=SPEC if s else None, broadcast=b), BROADCASTS, st.booleans()),
    st.builds(lambda u: Content(update=u), UPDATES),
    st.builds(lambda a: Content(ack=a), ACKS),
    st.builds(lambda f: Content(error=f), FAILURES),
)


@given(CONTENTS)
def test_what_is_written_reads_back(content: Content) -> None:
    data = encode(content)
    assert decode(data) == content
    assert sum(num_bytes_by_kind(data).values()) <= len(data)


@settings(max_examples=400)
@given(CONTENTS, st.data())
def test_two_byte_strings_never_mean_the_same(content: Content, data: st.DataObject) -> None:
    mutant = bytearray(encode(content))
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["flip", "cut", "grow", "insert"])):
            case "flip" if mutant:
                mutant[data.draw(st.integers(0, len(mutant) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del mutant[data.draw(st.integers(0, len(mutant))) :]
            case "insert":
                at = data.draw(st.integers(0, len(mutant)))
                mutant[at:at] = data.draw(st.binary(min_size=1, max_size=3))
            case _:
                mutant += data.draw(st.binary(min_size=1, max_size=3))
    try:
        read = decode(bytes(mutant))
    except RemoteError:
        return
    assert encode(read) == bytes(mutant)


def test_an_unknown_field_is_refused() -> None:
    data = encode(Content(error=Failure(1, "x")))
    unknown = bytes([15 << 3 | 2, 1, 0x41])  # field 15, one byte
    with pytest.raises(MalformedFrame, match="canonical"):
        decode(data + unknown)
    inner = pb.Error(code=1, text="x").SerializeToString() + unknown
    with pytest.raises(MalformedFrame, match="canonical"):
        decode(bytes([5 << 3 | 2, len(inner)]) + inner)


@pytest.mark.parametrize(
    "content",
    [
        Content(),
        Content(spec=SPEC),
        Content(update=Update(RUN, 1, 0, HASH, b"x", Metrics(1, 1, 1)), ack=Ack(RUN, 1, 0, HASH, SHA)),
        Content(broadcast=Broadcast(RUN, 0, 1, HASH, b""), error=Failure(1, "x")),
    ],
)
def test_a_content_is_a_task_or_one_answer(content: Content) -> None:
    with pytest.raises(MalformedFrame, match="parts"):
        decode(encode(content))


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (Broadcast(RUN, 2, 1, HASH, b""), "base round"),
        (Broadcast(RUN, 1, 1, HASH, b"x"), "moves from a round to itself"),
        (Broadcast(RUN, 0, 1, HASH[:-1], b""), "length of state hash"),
        (Broadcast(RUN, 0, limits.MAX_ROUND + 1, HASH, b""), "round"),
        (Update(RUN, 1, limits.MAX_SLOTS, HASH, b"x", Metrics(1, 1, 1)), "slot"),
        (Update(RUN, 1, 0, HASH, b"", Metrics(1, 1, 1)), "update without flips"),
        (Update(RUN, 1, 0, b"", b"x", Metrics(1, 1, 1)), "length of state hash"),
        (Ack(RUN, 1, 0, HASH, SHA + b"x"), "length of hash of the weights"),
    ],
)
def test_fields_out_of_bounds(message: Any, what: str) -> None:
    name = type(message).__name__.lower()
    with pytest.raises(MalformedFrame, match=what):
        decode(encode(Content(**{name: message})))


def spec_proto() -> pb.Spec:
    return SPEC.to_proto()


def changed(path: str, value: Any) -> bytes:
    """The spec with one field of its protobuf form set to something else."""
    proto: Any = spec_proto()
    *parents, name = path.split(".")
    target = proto
    for parent in parents:
        target = target.layers[0] if parent == "layer" else getattr(target, parent)
    if isinstance(value, list):
        del getattr(target, name)[:]
        getattr(target, name).extend(value)
    else:
        setattr(target, name, value)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def test_the_spec_reads_back() -> None:
    assert Spec.from_bytes(SPEC.to_bytes()) == SPEC
    assert changed("run_id", SPEC.run_id) == SPEC.to_bytes()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.architecture", ""),
        ("model.architecture", "x" * 257),
        ("model.strategy", "rp:0.10"),  # not the one spelling
        ("model.strategy", "rp:2"),
        ("model.layers", []),
        ("model.layer.scale", 0.0),
        ("model.layer.scale", float("nan")),
        ("model.layer.scale", -1.0),
        ("model.layer.shape", []),
        ("model.layer.shape", [0, 3]),
        ("model.layer.shape", [1 << 14, 1 << 15]),
        ("model.layer.shape", [1 << 31] * 8),
        ("model.layer.name", ""),
        ("model.layer.name", "layers.1.weight"),  # twice
        ("model.input.shape", [1, 8]),
        ("model.input.shape", [0, 8, 8]),
        ("model.input.mean", [0.5, 0.5]),
        ("model.input.std", [0.0]),
        ("model.input.std", [float("inf")]),
        ("model.input.class_names", []),
        ("model.input.class_names", [""]),
        ("protocol.step", 0),
        ("protocol.step", 65536),
        ("protocol.eta_num", 0),
        ("protocol.eta_den", 65536),
        ("protocol.start_level_deltas", [66, 1, 1]),  # no power of two
        ("protocol.start_level_deltas", [65, 1]),
        ("protocol.start_level_deltas", [66, 1 << 20]),
        ("protocol.start_level_deltas", [66] * 4096),
        ("training.epochs", 0),
        ("training.batch_size", 0),
        ("training.learning_rate", 0.0),
        ("training.learning_rate", float("nan")),
        ("data.dataset", ""),
        ("data.partition", ""),
        ("data.num_slots", 0),
        ("data.num_slots", limits.MAX_SLOTS + 1),
    ],
)
def test_a_spec_out_of_bounds(path: str, value: Any) -> None:
    with pytest.raises(MalformedFrame):
        Spec.from_bytes(changed(path, value))


def test_another_protocol_version_is_named() -> None:
    with pytest.raises(WrongProtocol, match=r"protocol version: got 2; wanted 1; in spec"):
        Spec.from_bytes(changed("protocol_version", 2))


def test_a_long_error_text_is_cut_to_whole_characters() -> None:
    failure = Failure(1, "ü" * limits.MAX_ERROR_TEXT_BYTES)
    read = decode(encode(Content(error=failure))).error
    assert read is not None
    assert read.text == "ü" * (limits.MAX_ERROR_TEXT_BYTES // 2)


def test_messages_are_values() -> None:
    ack = Ack(RUN, 1, 0, HASH, SHA)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ack.round = 2  # type: ignore[misc]
    assert ack == Ack(RUN, 1, 0, HASH, SHA)


def test_an_update_without_metrics_is_refused() -> None:
    update = Update(RUN, 1, 0, HASH, b"x", Metrics(1, 1, 1)).to_proto()
    update.ClearField("metrics")
    with pytest.raises(MalformedFrame, match="update without metrics"):
        decode(pb.Content(update=update).SerializeToString())
