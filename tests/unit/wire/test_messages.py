"""Messages: what is written reads back, and nothing else is read."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pemn.errors import MalformedFrame, RemoteError, WrongProtocol
from pemn.wire import limits, messages
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
HASH, SHA, FLIPS_HASH = bytes(range(16)), bytes(range(32)), bytes(range(8))
ROUND, U32 = st.integers(0, limits.MAX_ROUND), st.integers(0, 2**32 - 1)
IDS = st.integers(0, 2**64 - 1)
SLOT = st.integers(0, limits.MAX_SLOTS - 1)
BROADCASTS = st.builds(
    lambda run, a, b, hash_, change: Broadcast(run, min(a, b), max(a, b), hash_, change if a != b else b""),
    IDS, ROUND, ROUND, st.binary(min_size=16, max_size=16), st.binary(max_size=50),
)  # fmt: skip
UPDATES = st.builds(
    Update, IDS, ROUND, SLOT, st.binary(min_size=16, max_size=16), st.binary(min_size=1, max_size=50),
    st.binary(min_size=8, max_size=8), st.builds(Metrics, U32, U32, U32),
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


def seal(body: bytes) -> bytes:
    """Makes a content of its bytes without the check, as docs/wire.md has it."""
    return body + bytes([15 << 3 | 2, 8]) + hashlib.sha256(body).digest()[:8]


def body_of(content: Content) -> bytes:
    return encode(content)[:-10]


@given(CONTENTS)
def test_what_is_written_reads_back(content: Content) -> None:
    data = encode(content)
    assert data == seal(content.to_proto().SerializeToString(deterministic=True))
    assert decode(data) == content


@given(CONTENTS)
def test_the_ledger_gets_what_each_message_takes(content: Content) -> None:
    proto = pb.Content.FromString(encode(content))
    kinds = num_bytes_by_kind(encode(content))
    assert kinds == {
        name: len(getattr(proto, name).SerializeToString())
        for name in ("spec", "broadcast", "update", "ack", "error")
        if proto.HasField(name)
    }
    envelopes = sum(2 if num_bytes < 128 else 3 for num_bytes in kinds.values())  # tag and length
    assert sum(kinds.values()) + envelopes + 10 == len(encode(content))


@st.composite
def mutants(draw: st.DrawFn, data: bytes) -> bytes:
    mutant = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.sampled_from(["flip", "cut", "grow", "insert"])):
            case "flip" if mutant:
                mutant[draw(st.integers(0, len(mutant) - 1))] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del mutant[draw(st.integers(0, len(mutant))) :]
            case "insert":
                at = draw(st.integers(0, len(mutant)))
                mutant[at:at] = draw(st.binary(min_size=1, max_size=3))
            case _:
                mutant += draw(st.binary(min_size=1, max_size=3))
    return bytes(mutant)


@given(CONTENTS.flatmap(lambda content: st.tuples(st.just(encode(content)), mutants(encode(content)))))
def test_damage_costs_one_hash(pair: tuple[bytes, bytes]) -> None:
    data, mutant = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "parse", lambda *_: pytest.fail("was parsed"))
        for read in (decode, num_bytes_by_kind):
            if mutant != data:
                with pytest.raises(MalformedFrame, match="cut off or damaged"):
                    read(mutant)


@pytest.mark.parametrize(
    "body",
    [
        body_of(Content(ack=Ack(RUN, 1, 0, HASH, SHA)))[
            :-10
        ],  # its last hash reaches to the end of the check
        body_of(Content(error=Failure(1, "x")))
        + bytes([15 << 3 | 2, 5 + 10])
        + b"12345",  # a check in the check
    ],
)
def test_the_check_is_no_part_of_another_field(body: bytes) -> None:
    with pytest.raises(MalformedFrame, match="length of check"):
        decode(seal(body))


@pytest.mark.parametrize("length", range(12))
def test_too_short_for_a_check(length: int) -> None:
    with pytest.raises(MalformedFrame):
        decode(seal(b"")[-length:] if length else b"")


def field(number: int, body: bytes) -> bytes:
    """A field with a length below 2^14, in its shortest form."""
    size = len(body)
    return bytes([number << 3 | 2, *([size & 127 | 128, size >> 7] if size > 127 else [size])]) + body


NUMBERS = st.builds(
    lambda number, value: bytes([number << 3, value]), st.integers(1, 15), st.integers(0, 255)
)
NESTED = st.recursive(
    st.binary(max_size=6) | NUMBERS,
    lambda inner: st.lists(st.builds(field, st.integers(1, 15), inner), max_size=4).map(b"".join),
    max_leaves=12,
)


@st.composite
def changed_specs(draw: st.DrawFn) -> bytes:
    """A spec and a broadcast, well formed, with some fields of any value."""
    proto = Content(spec=SPEC, broadcast=Broadcast(RUN, 0, 1, HASH, b"x")).to_proto()
    for _ in range(draw(st.integers(1, 3))):
        change(draw, proto)
    return proto.SerializeToString(deterministic=True)


def change(draw: st.DrawFn, proto: Message) -> None:
    """Goes down to some field and gives it some value of its type."""
    target: Any = proto
    while True:
        found = draw(st.sampled_from([field.name for field, _ in target.ListFields()] or [""]))
        if not found:
            return
        value = getattr(target, found)
        if isinstance(value, Message):
            if draw(st.integers(0, 9)) == 0:
                target.ClearField(found)
                return
            target = value
        elif isinstance(value, int | float | str | bytes):
            setattr(target, found, draw(VALUES[type(value)]))
            return
        elif isinstance(value[0], Message):
            target = draw(st.sampled_from(list(value)))
        else:
            value[draw(st.integers(0, len(value) - 1))] = draw(VALUES[type(value[0])])
            return


VALUES: dict[type, st.SearchStrategy[Any]] = {
    int: U32 | st.integers(0, 70_000),
    float: st.floats(width=32) | st.sampled_from([0.0, -0.0]),
    str: st.text(max_size=300) | st.sampled_from(["mp", "rp:0.5", "rp:5e-1", "rp:", "mlp-16"]),
    bytes: st.binary(max_size=40),
}


@settings(max_examples=1000)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(seal),
        NESTED.map(seal),
        CONTENTS.map(body_of).flatmap(mutants).map(seal),
        CONTENTS.map(encode).flatmap(mutants),
        changed_specs().map(seal),
    )
)
@example(b"")
@example(seal(b""))
def test_any_bytes_are_refused_or_read_to_what_encodes_to_them(data: bytes) -> None:
    try:
        read = decode(data)
    except RemoteError:
        return
    assert encode(read) == data


@settings(max_examples=300)
@given(changed_specs())
def test_two_byte_strings_never_mean_the_same(body: bytes) -> None:
    try:
        read = decode(seal(body))
    except RemoteError:
        return
    content = Content(spec=SPEC, broadcast=Broadcast(RUN, 0, 1, HASH, b"x"))
    assert (read == content) == (seal(body) == encode(content))


def test_an_unknown_field_is_refused() -> None:
    unknown = bytes([14 << 3 | 2, 1, 0x41])  # field 14, one byte
    with pytest.raises(MalformedFrame, match="unknown field: got number 14, wire type 2"):
        decode(seal(body_of(Content(error=Failure(1, "x"))) + unknown))
    inner = pb.Error(code=1, text="x").SerializeToString() + unknown
    with pytest.raises(MalformedFrame, match="unknown field"):
        decode(seal(field(5, inner)))


def test_defaults_that_are_written_are_refused() -> None:
    with pytest.raises(MalformedFrame, match="canonical"):
        decode(seal(field(5, bytes([1 << 3, 0, 2 << 3 | 2, 1, 0x41]))))


def test_text_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(MalformedFrame, match="not a message"):
        decode(seal(field(5, field(2, b"\xff"))))


def test_two_checks_are_refused() -> None:
    with pytest.raises(MalformedFrame, match="too often"):
        decode(seal(encode(Content(error=Failure(1, "x")))))


@pytest.mark.parametrize(
    "content",
    [
        Content(),
        Content(spec=SPEC),
        Content(
            update=Update(RUN, 1, 0, HASH, b"x", FLIPS_HASH, Metrics(1, 1, 1)), ack=Ack(RUN, 1, 0, HASH, SHA)
        ),
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
        (Broadcast(RUN, 1, 1, HASH, b"x"), "change from a round to itself"),
        (Broadcast(RUN, 0, 1, HASH[:-1], b""), "length of state hash"),
        (Broadcast(RUN, 0, limits.MAX_ROUND + 1, HASH, b""), "round"),
        (Update(RUN, 1, limits.MAX_SLOTS, HASH, b"x", FLIPS_HASH, Metrics(1, 1, 1)), "slot"),
        (Update(RUN, 1, 0, HASH, b"", FLIPS_HASH, Metrics(1, 1, 1)), "update without a vote"),
        (Update(RUN, 1, 0, b"", b"x", FLIPS_HASH, Metrics(1, 1, 1)), "length of state hash"),
        (
            Update(RUN, 1, 0, HASH, b"x", FLIPS_HASH[1:], Metrics(1, 1, 1)),
            "length of hash of the vote: got 7",
        ),
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
        ("model.layer.scale", 2.0**21),
        ("model.distribution", ""),
        ("model.distribution", "Signed"),
        ("model.layer.shape", []),
        ("model.layer.shape", [0, 3]),
        ("model.layer.shape", [1 << 14, 1 << 15]),
        ("model.layer.shape", [1 << 31] * 8),
        ("model.layer.name", ""),
        ("model.layer.name", "layers.1.weight"),  # twice
        ("model.input.shape", [1, 8]),
        ("model.input.shape", [0, 8, 8]),
        ("model.input.mean", [0.5, 0.5]),
        ("model.input.mean", [-0.0]),
        ("model.input.std", [0.0]),
        ("model.input.std", [float("inf")]),
        ("model.input.class_names", []),
        ("model.input.class_names", [""]),
        ("model.tie", 0),
        ("model.tie", 257),
        ("num_rounds", 0),
        ("num_rounds", limits.MAX_ROUND + 1),
        ("mask.step", 511),
        ("mask.step", 65536),
        ("mask.eta_nums", []),
        ("mask.eta_nums", [pb.Count(from_round=1, value=0)]),
        ("mask.eta_nums", [pb.Count(from_round=1, value=65536)]),
        ("mask.eta_nums", [pb.Count(from_round=2, value=1)]),
        ("mask.eta_nums", [pb.Count(from_round=1, value=1), pb.Count(from_round=5, value=1)]),
        ("mask.eta_nums", [pb.Count(from_round=1, value=1), pb.Count(from_round=1, value=2)]),
        ("mask.eta_nums", [pb.Count(from_round=1, value=1), pb.Count(from_round=1 << 31, value=2)]),
        ("mask.eta_nums", [pb.Count(from_round=i, value=i) for i in range(1, 258)]),
        ("mask.eta_den", 65536),
        ("mask.strides", []),
        ("mask.strides", [pb.Count(from_round=1, value=2)]),  # twice half a probability
        ("mask.keeps", []),
        ("mask.keeps", [pb.Count(from_round=1, value=257)]),
        ("mask.window", 0),
        ("mask.window", limits.MAX_WINDOW + 1),
        ("mask.start_level_deltas", [66, 1, 1]),  # no power of two
        ("mask.start_level_deltas", [65, 1]),
        ("mask.start_level_deltas", [66, 1 << 20]),
        ("mask.start_level_deltas", [66] * 4096),
        ("model.input.class_names", ["x" * 256] * 4100),  # more than 1 MiB
        ("training.epochs", 0),
        ("training.epochs", 10_001),
        ("training.batch_size", 0),
        ("training.batch_size", (1 << 20) + 1),
        ("training.learning_rates", []),
        ("training.learning_rates", [pb.Rate(from_round=1, value=0.0)]),
        ("training.learning_rates", [pb.Rate(from_round=1, value=1000.1)]),
        ("training.learning_rates", [pb.Rate(from_round=1, value=float("nan"))]),
        ("training.learning_rates", [pb.Rate(from_round=i, value=i) for i in range(1, 258)]),
        ("training.logit_adjustment", -0.0),
        ("training.logit_adjustment", -1.0),
        ("training.logit_adjustment", 100.1),
        ("training.logit_adjustment", float("nan")),
        ("data.dataset", ""),
        ("data.partition", ""),
        ("data.num_slots", 0),
        ("data.num_slots", limits.MAX_SLOTS + 1),
    ],
)
def test_a_spec_out_of_bounds(path: str, value: Any) -> None:
    with pytest.raises(MalformedFrame):
        Spec.from_bytes(changed(path, value))


def test_a_distribution_that_is_none_is_named() -> None:
    wanted = r"distribution: got 'cauchy'; wanted signed, uniform, normal$"
    with pytest.raises(MalformedFrame, match=wanted):
        Spec.from_bytes(changed("model.distribution", "cauchy"))


def test_a_federation_exchanges_no_floats() -> None:
    proto = SPEC.to_proto()
    proto.model.floats.add(name="bias", shape=[3])
    with pytest.raises(MalformedFrame, match="floats of a network in a federation: got 1; wanted 0"):
        Spec.from_bytes(proto.SerializeToString(deterministic=True))


def test_another_protocol_version_is_named() -> None:
    with pytest.raises(WrongProtocol, match=r"protocol version: got 2; wanted 7; in spec"):
        Spec.from_bytes(changed("protocol_version", 2))


def test_a_long_error_text_is_cut_to_whole_characters() -> None:
    failure = Failure(1, "ü" * limits.MAX_ERROR_TEXT_BYTES)
    read = decode(encode(Content(error=failure))).error
    assert read is not None
    assert read.text == "ü" * (limits.MAX_ERROR_TEXT_BYTES // 2)


def test_an_error_text_may_name_a_file_that_is_no_utf8() -> None:
    failure = Failure(50, b"data-\xff.png".decode(errors="surrogateescape"))
    assert decode(encode(Content(error=failure))).error == Failure(50, "data-?.png")


def test_messages_are_values() -> None:
    ack = Ack(RUN, 1, 0, HASH, SHA)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ack.round = 2  # type: ignore[misc]
    assert ack == Ack(RUN, 1, 0, HASH, SHA)


def test_an_update_without_metrics_is_refused() -> None:
    update = Update(RUN, 1, 0, HASH, b"x", FLIPS_HASH, Metrics(1, 1, 1)).to_proto()
    update.ClearField("metrics")
    with pytest.raises(MalformedFrame, match="update without metrics"):
        decode(seal(pb.Content(update=update).SerializeToString()))
