"""Coded decisions: nothing lost, nothing ambiguous, no harm done."""

from __future__ import annotations

import doctest
import itertools
from contextlib import suppress
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn import codec
from pemn.codec import Coder, Reader, blocks, encode, rans
from pemn.codec.bits import write_varint
from pemn.errors import LocalError, MalformedFrame
from tests.unit.codec.sequences import IMPLEMENTATIONS, Sequence, draw, implementation, sequences


@settings(max_examples=150)
@given(sequences(6000))
def test_decoding_gives_back_the_decisions(sequence: Sequence) -> None:
    coded = sequence.encode()
    assert sequence.decode(coded).same(sequence)
    num_decisions = sequence.num_weights + int(sequence.decisions[:-1].sum())
    assert len(coded) <= 1 + -(-num_decisions // 8) * 1.02 + 16


@settings(max_examples=12)
@given(sequences(200_000))
def test_decoding_gives_back_long_sequences(sequence: Sequence) -> None:
    assert sequence.decode(sequence.encode()).same(sequence)


@pytest.mark.parametrize(
    ("num_weights", "share", "coder"),
    [
        (0, 0, Coder.RAW),
        (3, 0.5, Coder.RAW),
        (10_000, 0.5, Coder.RAW),
        (10_000, 0, Coder.RICE),
        (10_000, 0.001, Coder.RICE),
        (3_000, 0.8, Coder.RANS),
        (300_000, 0.1, Coder.RANS),
        (5_000, 1, Coder.RANS),
    ],
)
def test_the_shortest_coder_is_taken(num_weights: int, share: float, coder: Coder) -> None:
    assert draw(1, num_weights, share).encode()[0] == coder


def test_contexts_pay() -> None:
    random = np.random.default_rng(3)
    contexts = random.integers(0, 4, (1, 100_000)).astype(np.uint16)
    decisions = random.random((1, 100_000)) < np.array([0.001, 0.02, 0.3, 0.98])[contexts]
    told = Sequence(decisions, contexts, (4,)).encode()
    untold = Sequence(decisions, np.zeros_like(contexts)).encode()
    assert len(told) < 0.6 * len(untold)


def test_blocks_double_up_to_32768_weights() -> None:
    sizes = [stop - start for start, stop in blocks(300_000)]
    assert sizes[:3] == [64, 128, 256]
    assert max(sizes) == 32_768
    assert sum(sizes) == 300_000
    assert list(blocks(0)) == []


def test_blocks_begin_anew_at_restarts() -> None:
    assert list(blocks(300, (100, 100, 170))) == [
        (0, 64),
        (64, 100),
        (100, 164),
        (164, 170),
        (170, 234),
        (234, 300),
    ]


def check_fate(sequence: Sequence, data: bytes) -> None:
    """Either the bytes are refused, or they are what the encoder writes for what they say."""
    try:
        said = sequence.decode(data)
    except MalformedFrame:
        return
    assert said.encode() == data


@settings(max_examples=400)
@given(sequences(1500), st.data())
def test_damage_is_refused_or_canonical(sequence: Sequence, data: st.DataObject) -> None:
    coded = bytearray(sequence.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        action = data.draw(st.sampled_from(["set", "head", "cut", "grow", "coder"]))
        if action in ("set", "head") and coded:
            coded[data.draw(st.integers(0, min(len(coded), 9 if action == "head" else len(coded)) - 1))] = (
                data.draw(st.integers(0, 255))
            )
        elif action == "coder" and coded:
            coded[0] = data.draw(st.integers(0, 3))
        elif action == "cut":
            del coded[data.draw(st.integers(0, len(coded))) :]
        else:
            coded += data.draw(st.binary(min_size=1, max_size=4))
    check_fate(sequence, bytes(coded))


@given(sequences(300), st.integers(0, 3), st.binary(max_size=60))
@example(draw(1, 100, 0), Coder.RICE, b"\x80" * 5000 + b"\x01")
@example(draw(1, 100, 0), Coder.RANS, b"\x80" * 5000 + b"\x01")
@example(draw(1, 100, 0), Coder.RICE, write_varint(4096) + b"\x1f" + b"\xff" * 16_384)
def test_garbage_is_refused_or_canonical(sequence: Sequence, coder: int, garbage: bytes) -> None:
    check_fate(sequence, bytes([coder]) + garbage)


@pytest.mark.parametrize("bits_a_lane", [3000, 12_000])
def test_another_number_of_lanes_is_refused(bits_a_lane: int) -> None:
    sequence = draw(2, 60_000, 0.2)
    with mock.patch.object(rans, "_BITS_A_LANE", bits_a_lane):
        other = sequence.encode()
        assert sequence.decode(other).same(sequence)
    assert other[0] == Coder.RANS
    with pytest.raises(MalformedFrame, match=r"canonical|lanes"):
        sequence.decode(other)


@pytest.mark.parametrize(
    ("num_weights", "share", "coder"),
    [
        (3, 0.3, Coder.RAW),
        (100, 0.03, Coder.RICE),
        (500, 0.01, Coder.RICE),
        (300, 0.9, Coder.RANS),
        (200, 0.97, Coder.RANS),
    ],
)
def test_every_other_byte_in_every_place_is_refused_or_canonical(
    num_weights: int, share: float, coder: Coder
) -> None:
    sequence = draw(2, num_weights, share, (3,))
    coded = sequence.encode()
    assert coded[0] == coder
    for i, byte in itertools.product(range(len(coded)), range(256)):
        if byte != coded[i]:
            check_fate(sequence, coded[:i] + bytes([byte]) + coded[i + 1 :])


ALL_SHORT = [bytes(data) for size in range(3) for data in itertools.product(range(256), repeat=size)]
THREE_BYTES = [bytes(data) for data in itertools.product(range(2), range(24), range(256))]


@pytest.mark.parametrize(
    ("num_weights", "strings"), [*((n, ALL_SHORT) for n in (0, 1, 3, 5)), (6, THREE_BYTES)]
)
def test_of_all_short_strings_exactly_the_codes_are_accepted(num_weights: int, strings: list[bytes]) -> None:
    contexts, codes = np.zeros((2, num_weights), np.uint16), set()
    for said in itertools.product(range(3), repeat=num_weights):
        codes.add(Sequence(np.array(said, np.uint8) >= np.array([[1], [2]]), contexts).encode())
    assert len(codes) == 3**num_weights
    sequence, accepted = Sequence(np.zeros_like(contexts, np.bool_), contexts), set()
    for data in strings:
        with suppress(MalformedFrame):
            sequence.decode(data)
            accepted.add(data)
    assert accepted == codes.intersection(strings)


def test_the_example_in_the_documentation() -> None:
    assert doctest.testmod(codec).attempted > 5
    assert doctest.testmod(codec).failed == 0


@pytest.mark.parametrize(
    ("decisions", "contexts", "told"),
    [
        (np.zeros(9, np.bool_), np.zeros(8, np.uint16), "bool .*wanted bool"),
        (np.zeros(9, np.uint8), np.zeros(9, np.uint16), "got uint8"),
        (
            np.zeros(9, np.bool_),
            np.full(9, 3, np.uint16),
            "contexts: got uint16, up to 3; wanted uint16, 0 .. 2",
        ),
        (np.zeros(9, np.bool_), np.zeros(9, np.int64), "contexts: got int64"),
        (np.zeros(9, np.bool_), np.full(9, -1, np.int64), "contexts: got int64"),
    ],
)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_caller_that_is_wrong_is_told(
    name: str, decisions: NDArray[np.bool_], contexts: NDArray[np.uint16], told: str
) -> None:
    """Compiled loops would read and write anywhere."""
    with implementation(name), pytest.raises(LocalError, match=told):
        encode(9, lambda start, stop: [(decisions[start:stop], contexts[start:stop])], (3,))
    if "contexts" in told:
        reader = Reader(encode(9, lambda *_: [(np.zeros(9, np.bool_), np.zeros(9, np.uint16))], (3,)), (3,))
        with implementation(name), pytest.raises(LocalError, match=told):
            reader.read(contexts)
