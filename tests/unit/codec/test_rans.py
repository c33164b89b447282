"""Interleaved rANS: three implementations, one code."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.codec import rans
from pemn.errors import MalformedFrame
from tests.unit.codec.sequences import HAS_NUMBA, IMPLEMENTATIONS, Sequence, draw, implementation, sequences

needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="needs the extra `fast`")

Parts = list[tuple[NDArray[np.bool_], NDArray[np.uint16]]]


def encode(parts: Parts, table: NDArray[np.uint16], lanes: int) -> bytes:
    out = rans.Encoder(lanes)
    for decisions, contexts in reversed(parts):
        out.put(decisions, contexts, table)
    return out.to_bytes()


def decode(data: bytes, parts: Parts, table: NDArray[np.uint16]) -> list[NDArray[np.bool_]]:
    decoder = rans.Decoder(data)
    out = [decoder.read(contexts, table) for _, contexts in parts]
    decoder.finish()
    return out


@given(
    st.integers(0, 1 << 30),
    st.sampled_from([1, 2, 3, 16, 20, 345, 4096]),
    st.lists(st.integers(0, 2000), max_size=4),
    st.sampled_from([1, 5, 16_384, 32_760, 32_767]),
)
def test_all_implementations_write_and_read_the_same_words(
    seed: int, lanes: int, sizes: list[int], around: int
) -> None:
    random = np.random.default_rng(seed)
    table = np.clip(around + random.integers(-5, 6, 40), 1, 32_767).astype(np.uint16)
    parts: Parts = []
    for size in sizes:
        contexts = random.integers(0, 40, size).astype(np.uint16)
        # Half of the sequences are as likely as the table says, half are anything.
        share = table[contexts] / 32_768 if seed % 2 else 0.5
        parts.append((random.random(size) < share, contexts))
    codes = []
    for name in IMPLEMENTATIONS:
        with implementation(name):
            codes.append(encode(parts, table, lanes))
    assert len(set(codes)) == 1
    for name in IMPLEMENTATIONS:
        with implementation(name):
            for (decisions, _), got in zip(parts, decode(codes[0], parts, table), strict=True):
                assert np.array_equal(got, decisions)


@given(st.integers(0, 1 << 30), st.integers(1, 40), st.integers(0, 300))
def test_all_implementations_read_anything_alike(seed: int, lanes: int, num_words: int) -> None:
    random = np.random.default_rng(seed)
    states = random.integers(rans.LOW, 1 << 32, lanes).astype("<u4")
    data = bytes([lanes]) + states.tobytes() + random.bytes(2 * num_words)
    table = random.integers(1, 32_768, 40).astype(np.uint16)
    contexts = random.integers(0, 40, 1000).astype(np.uint16)
    fates = []
    for name in IMPLEMENTATIONS:
        with implementation(name):
            decoder = rans.Decoder(data)
            try:
                fates.append((decoder.read(contexts, table).tobytes(), decoder._states.tobytes()))
            except MalformedFrame as error:
                fates.append((str(error).encode(), b""))
    assert len(set(fates)) == 1


@settings(max_examples=20)
@given(sequences(4000))
def test_whole_sequences_are_coded_alike(sequence: Sequence) -> None:
    codes = set()
    for name in IMPLEMENTATIONS:
        with implementation(name):
            codes.add(sequence.encode())
            assert sequence.decode(sequence.encode()).same(sequence)
    assert len(codes) == 1


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_missing_last_word_is_missed_wherever_it_was_to_be_read(name: str) -> None:
    """Lists of a step that all lanes take part in and one that not all do; the last word is read in any of them."""
    table = np.array([16_384], np.uint16)
    for seed in range(300):
        random = np.random.default_rng(seed)
        parts = [(random.random(39) < 0.5, np.zeros(39, np.uint16)) for _ in range(12)]
        with implementation(name):
            code = encode(parts, table, 20)
            with pytest.raises(MalformedFrame, match="ends too early"):
                decode(code[:-2], parts, table)


def test_what_each_lane_count_costs() -> None:
    costs = (0, 6399, 12_800, 32_768, 58_000, 100_000, 131_071, 131_072, 204_799, 211_200, 1_280_000, 1 << 40)
    wanted = [1, 1, 2, 5, 9, 21, 31, 32, 32, 33, 200, rans.MAX_LANES]
    assert [rans.num_lanes(bits) for bits in costs] == wanted


HEAD = bytes([1]) + (1 << 20).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "ends too early"),
        (bytes([0]), "lanes: got 0"),
        (HEAD[:-1], "lanes: got 1 in 4 bytes"),
        (HEAD + b"\x00", "lanes: got 1 in 6 bytes"),
        (b"\x80\x20" + bytes(100), "lanes: got 4096"),
        (b"\x81\x20", "number: got 4097"),
        (bytes([1]) + (rans.LOW - 1).to_bytes(4, "little"), "state of a lane: got 65535"),
    ],
)
def test_a_wrong_head_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(MalformedFrame, match=told):
        rans.Decoder(data)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_code_that_is_too_short_or_too_long_is_refused(name: str) -> None:
    decisions = np.arange(500) % 3 == 0
    contexts, table = np.zeros(500, np.uint16), np.array([9000], np.uint16)
    parts = [(decisions, contexts)]
    with implementation(name):
        coded = encode(parts, table, 2)
        for wrong, told in (
            (coded[:-2], "ends too early"),
            (coded + b"\x00\x00", "words left"),
            (coded[:1] + bytes([coded[1] ^ 1]) + coded[2:], "last state|words left|too early"),
        ):
            with pytest.raises(MalformedFrame, match=told):
                decode(wrong, parts, table)


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_numba_is_loaded_by_those_who_code_much() -> None:
    script = """
        import sys
        from pemn.codec import fast
        from tests.unit.codec.sequences import draw
        draw(1, 100_000, 0.2).encode()
        print("numba" in sys.modules)
        fast.PATIENCE = 150_000
        draw(1, 100_000, 0.2).encode()
        print("numba" in sys.modules)
    """
    assert run(script).split() == ["False", str(HAS_NUMBA)]


def test_it_works_without_numba() -> None:
    script = """
        import hashlib, sys
        sys.modules["numba"] = None  # as if it were not installed
        from tests.unit.codec.sequences import draw
        sequence = draw(1, 200_000, 0.2, (64,), 2)
        coded = sequence.encode()
        assert sequence.decode(coded).same(sequence)
        print(hashlib.sha256(coded).hexdigest())
    """
    assert run(script) == hashlib.sha256(draw(1, 200_000, 0.2, (64,), 2).encode()).hexdigest()


@needs_numba
def test_kernels_work_where_no_folder_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "NUMBA_CACHE_LOCATOR_CLASSES", "ZipCacheLocator"
    )  # numba then finds no place for its cache
    script = """
        from tests.unit.codec.sequences import draw
        sequence = draw(1, 100_000, 0.2)
        print(sequence.decode(sequence.encode()).same(sequence))
    """
    assert run(script) == "True"
