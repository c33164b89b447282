"""Counters as bit planes: they are the sums, whatever comes in whatever portions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.federation import planes
from pemn.federation.planes import BitPlanes, Packed

POWERS_AND_NEIGHBOURS = sorted({0, 1, 2, *(2**i + d for i in range(2, 9) for d in (-1, 0, 1)), 300, 511, 700})


def pack(votes: NDArray[np.int8]) -> list[tuple[Packed, Packed]]:
    """Votes [K, n] of -1, 0, 1 as they come in."""
    raised, lowered = (np.packbits(votes == sign, axis=1, bitorder="little") for sign in (1, -1))
    return list(zip(raised, lowered, strict=True))


def draw(num_votes: int, n: int, seed: int, odds: tuple[float, float, float]) -> NDArray[np.int8]:
    generator = np.random.default_rng(seed)
    return generator.choice(np.array([-1, 0, 1], np.int8), (num_votes, n), p=odds)


def count(votes: NDArray[np.int8], portion: int) -> BitPlanes:
    counters, packed = BitPlanes(-(-votes.shape[1] // 8)), pack(votes)
    for start in range(0, len(packed), portion):
        counters.add(packed[start : start + portion])
    return counters


ODDS = st.sampled_from([(0.25, 0.5, 0.25), (0.02, 0.97, 0.01), (0.0, 0.1, 0.9), (0.9, 0.1, 0.0)])


@given(
    num_votes=st.sampled_from(POWERS_AND_NEIGHBOURS) | st.integers(0, 400),
    n=st.integers(1, 200),
    seed=st.integers(0, 999),
    odds=ODDS,
    portion=st.integers(1, 40),
)
@example(num_votes=31, n=64, seed=0, odds=(0.25, 0.5, 0.25), portion=31)
def test_counters_are_the_sums_of_the_votes(
    num_votes: int, n: int, seed: int, odds: tuple[float, float, float], portion: int
) -> None:
    votes = draw(num_votes, n, seed, odds)
    assert count(votes, portion).integers(0, n).tolist() == votes.sum(axis=0, dtype=int).tolist()


@settings(max_examples=25)
@given(n=st.integers(1, 1300), seed=st.integers(0, 999), portion=st.integers(1, 20))
def test_blocks_leave_no_seam(n: int, seed: int, portion: int) -> None:
    votes = draw(37, n, seed, (0.3, 0.3, 0.4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "_ADD_BLOCK_BYTES", 24)
        patch.setattr(planes, "_UNPACK_BLOCK_BYTES", 8)
        counters = count(votes, portion)
        assert counters.integers(0, n).tolist() == votes.sum(axis=0, dtype=int).tolist()


def test_more_than_a_block_of_real_size() -> None:
    n = 8 * planes._ADD_BLOCK_BYTES + 4001
    votes = draw(5, n, 1, (0.3, 0.3, 0.4))
    assert np.array_equal(count(votes, 5).integers(0, n), votes.sum(axis=0, dtype=np.int32))


@given(st.integers(0, 30), st.integers(0, 250), st.integers(0, 99))
def test_a_part_is_cut_out_of_the_whole(first_byte: int, length: int, seed: int) -> None:
    votes = draw(9, 500, seed, (0.3, 0.3, 0.4))
    start = 8 * first_byte
    part = count(votes, 4).integers(start, start + length)
    assert part.dtype == np.int32
    assert part.tolist() == votes[:, start : start + length].sum(axis=0, dtype=int).tolist()


@pytest.mark.parametrize("num_votes", [127, 128, 255, 256, 32767, 32768, 65535])
def test_all_of_one_mind_reach_both_ends(num_votes: int) -> None:
    vote = np.array([[1, -1, 0, 1, 1, 1, 1, 1, -1]], np.int8)
    counters, packed = BitPlanes(2), pack(vote) * 16
    for start in range(0, num_votes, 16):
        counters.add(packed[: num_votes - start])
    assert counters.integers(0, 9).tolist() == (num_votes * vote[0].astype(int)).tolist()


def test_sums_that_were_read_grow_on() -> None:
    votes = draw(200, 77, 3, (0.3, 0.3, 0.4))
    counters = BitPlanes(10)
    for i, vote in enumerate(pack(votes), 1):
        counters.add([vote])
        assert counters.integers(0, 77).tolist() == votes[:i].sum(axis=0, dtype=int).tolist()


def test_votes_are_not_changed() -> None:
    packed = pack(draw(33, 100, 4, (0.3, 0.3, 0.4)))
    for raised, lowered in packed:
        raised.setflags(write=False)
        lowered.setflags(write=False)
    BitPlanes(13).add(packed)


def test_memory_grows_with_the_logarithm_of_the_votes() -> None:
    counters = BitPlanes(1)
    packed = pack(draw(1000, 8, 5, (0.3, 0.3, 0.4)))
    counters.add(packed)
    assert len(counters._planes) == 11
