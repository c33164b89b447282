"""The words of docs/wire.md, "Random words", and what they are used for."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pemn.generator import child, permutation, uint8s, uint16s, word, words

KEY = 0x0123456789ABCDEF
KEYS = st.integers(0, 2**64 - 1)


def test_golden_words() -> None:
    golden = [0x157A3807A48FAA9D, 0xD573529B34A1D093, 0x2F90B72E996DCCBE, 0xA2D419334C4667EC]
    assert words(KEY, 0, 4).tolist() == golden
    assert [word(KEY, i) for i in range(4)] == golden


def test_golden_hash_of_a_million_words() -> None:
    digest = hashlib.sha256(words(KEY, 0, 1 << 20).astype("<u8").tobytes()).hexdigest()
    assert digest.startswith("634ce08f1ea4631f")


@given(KEYS, st.integers(0, 2**40), st.integers(0, 200))
def test_any_slice_equals_the_definition(key: int, start: int, count: int) -> None:
    assert words(key, start, count).tolist() == [word(key, start + i) for i in range(count)]


def test_blocks_do_not_show() -> None:
    whole = words(KEY, 0, 100_000)
    assert np.array_equal(whole[33_000:99_000], words(KEY, 33_000, 66_000))


@given(KEYS, st.integers(0, 1000), st.integers(0, 50))
def test_any_slice_of_16_bit_integers(key: int, start: int, count: int) -> None:
    whole = uint16s(key, 0, start + count)
    assert np.array_equal(uint16s(key, start, count), whole[start:])
    if count:
        assert int(whole[start]) == word(key, start // 4) >> 16 * (start % 4) & 0xFFFF


@given(KEYS, st.integers(0, 300), st.integers(0, 300))
def test_any_slice_of_8_bit_integers(key: int, start: int, count: int) -> None:
    wanted = [word(key, i // 8) >> 8 * (i % 8) & 0xFF for i in range(start, start + count)]
    assert uint8s(key, start, count).tolist() == wanted


@given(KEYS, st.lists(st.integers(0, 2**64 - 1), max_size=4))
def test_a_stream_key_is_a_word_of_its_parent(key: int, path: list[int]) -> None:
    assert child(key) == key
    for i in range(len(path)):
        assert child(key, *path[: i + 1]) == word(child(key, *path[:i]), path[i])


@given(KEYS, st.integers(0, 200))
def test_permutation(key: int, count: int) -> None:
    assert sorted(permutation(key, count).tolist()) == list(range(count))
