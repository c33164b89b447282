"""Arbitrary bytes for every decoder: refused, or just what would have been written (`tests.fuzz.targets`)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pemn.codec import Coder, rice
from pemn.codec.bits import write_varint
from pemn.wire.v1 import messages_pb2 as pb
from tests.fuzz import targets
from tests.fuzz.targets import CORPUS, TARGETS

_numbers = st.integers(0, 4200).map(write_varint)
_states = st.lists(st.integers(1 << 16, (1 << 32) - 1), max_size=5)
_words = st.one_of(st.binary(max_size=400), st.integers(0, 300).map(lambda count: bytes(2 * count)))


def _rans(states: list[int], words: bytes) -> bytes:
    return write_varint(len(states)) + b"".join(state.to_bytes(4, "little") for state in states) + words


_rice_codes = st.builds(
    lambda count, k, string: write_varint(count) + bytes([k]) + string,
    st.integers(0, rice.MAX_ONES + 1),
    st.integers(0, 33),
    st.binary(max_size=300),
)
_sequences = st.one_of(
    st.builds(lambda coder, rest: bytes([coder]) + rest, st.integers(0, 3), st.binary(max_size=400)),
    _rice_codes.map(lambda code: bytes([Coder.RICE]) + code),
    st.builds(_rans, _states, _words).map(lambda code: bytes([Coder.RANS]) + code),
    st.binary(max_size=3),
)


@given(st.one_of(st.binary(max_size=12), _numbers))
def test_numbers(data: bytes) -> None:
    TARGETS["number"](data)


@given(st.one_of(st.binary(max_size=400), _rice_codes))
@example(b"\x01\x1f\xff\xff\xff\xff\xff")
def test_rice_codes(data: bytes) -> None:
    TARGETS["ones"](data)


@given(st.integers(0, 4), st.integers(0, 1500), _sequences)
def test_sequences_of_every_shape(shape: int, num_weights: int, data: bytes) -> None:
    TARGETS["sequence"](bytes([shape]) + num_weights.to_bytes(2, "little") + data)


@pytest.mark.parametrize("target", ["flips", "moves", "mask"])
@settings(max_examples=60)
@given(_sequences)
def test_coded_states(target: str, data: bytes) -> None:
    TARGETS[target](data)


def _near(name: str) -> st.SearchStrategy[bytes]:
    """Inputs of the corpus with some bytes changed, removed or put in."""
    whole = st.sampled_from([path.read_bytes() for path in sorted((CORPUS / name).iterdir())])
    edits = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 3), st.binary(max_size=3)), max_size=3)
    return st.builds(_edited, whole, edits)


def _edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, removed, added in edits:
        at %= len(data) + 1
        data = data[:at] + added + data[at + removed :]
    return data


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60)
@given(st.data())
def test_near_the_corpus(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(_near(target)))


_texts = st.text(max_size=20)
_fields = st.dictionaries(
    st.sampled_from([*pb.Update.DESCRIPTOR.fields_by_name, *pb.Broadcast.DESCRIPTOR.fields_by_name]),
    st.one_of(st.integers(0, 1 << 33), st.binary(max_size=40)),
    max_size=6,
)


@given(st.sampled_from(["update", "broadcast", "ack", "error"]), _fields, _texts)
def test_contents_with_fields_of_any_value(kind: str, fields: dict[str, int | bytes], text: str) -> None:
    proto = pb.Content()
    message = getattr(proto, kind)
    message.SetInParent()
    for name, value in [*fields.items(), ("text", text)]:
        try:
            setattr(message, name, value)
        except (AttributeError, TypeError, ValueError):
            continue  # it has no such field, or of another type
    TARGETS["content"](proto.SerializeToString(deterministic=True))


@given(st.binary(max_size=300), st.sampled_from(list(TARGETS)))
def test_noise(data: bytes, target: str) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize("damaged", ["read_varint", "rice", "Reader", "decode"])
def test_targets_notice_what_they_should(damaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that takes what nobody would have written, or ends with another error."""
    breaks: dict[str, tuple[str, Callable[..., object], bytes]] = {
        "read_varint": ("number", lambda data, at, most: (0, 2), b"\x80\x00"),
        "rice": ("ones", lambda data: [][0], b"\x00"),
        "Reader": ("sequence", lambda *arguments: None, b"\0\1\0\0\0"),
        "decode": ("content", lambda data: 1 // 0, b""),
    }
    target, instead, data = breaks[damaged]
    TARGETS[target](data)
    owner, name = (rice, "decode") if damaged == "rice" else (targets, damaged)
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises((AssertionError, IndexError, AttributeError, ZeroDivisionError)):
        TARGETS[target](data)
