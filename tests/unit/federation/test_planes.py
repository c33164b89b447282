"""Counters as bit planes: they are the sums, whatever comes in whatever portions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.errors import LocalError
from pemn.federation import planes
from pemn.federation.planes import GROUP, BitPlanes

POWERS_AND_NEIGHBOURS = sorted({0, 1, 2, *(2**i + d for i in range(2, 9) for d in (-1, 0, 1)), 300, 511, 700})


def draw(num_masks: int, n: int, seed: int, share: float = 0.5) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((num_masks, n)) < share


def count(masks: NDArray[np.bool_], portion: int = GROUP) -> BitPlanes:
    counters = BitPlanes(-(-masks.shape[1] // 8))
    packed = np.packbits(masks, axis=1, bitorder="little")
    packed.setflags(write=False)  # masks are not changed
    for start in range(0, len(packed), portion):
        add(counters, packed[start : start + portion])
    return counters


def add(counters: BitPlanes, packed: NDArray[np.uint8]) -> None:
    counters.add(len(packed), lambda start, stop: list(packed[:, start:stop]))


@given(
    num_masks=st.sampled_from(POWERS_AND_NEIGHBOURS) | st.integers(0, 400),
    n=st.integers(1, 200),
    seed=st.integers(0, 999),
    share=st.sampled_from([0.5, 0.02, 0.98, 1.0, 0.0]),
    portion=st.integers(1, GROUP),
)
@example(num_masks=31, n=64, seed=0, share=0.5, portion=GROUP)
def test_counters_are_the_sums_of_the_masks(
    num_masks: int, n: int, seed: int, share: float, portion: int
) -> None:
    masks = draw(num_masks, n, seed, share)
    assert count(masks, portion).integers(0, n).tolist() == masks.sum(axis=0).tolist()


@settings(max_examples=25)
@given(n=st.integers(1, 1300), seed=st.integers(0, 999), portion=st.integers(1, GROUP))
def test_blocks_leave_no_seam(n: int, seed: int, portion: int) -> None:
    masks = draw(37, n, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "_ADD_BLOCK_BYTES", 24)
        patch.setattr(planes, "_UNPACK_BLOCK_BYTES", 8)
        assert count(masks, portion).integers(0, n).tolist() == masks.sum(axis=0).tolist()


def test_more_than_a_block_of_real_size() -> None:
    n = 8 * planes._ADD_BLOCK_BYTES + 4001
    masks = draw(5, n, 1)
    assert np.array_equal(count(masks).integers(0, n), masks.sum(axis=0))


@given(st.integers(0, 30), st.integers(0, 250), st.integers(0, 99))
def test_a_part_is_cut_out_of_the_whole(first_byte: int, length: int, seed: int) -> None:
    masks = draw(9, 500, seed)
    start = 8 * first_byte
    part = count(masks, 4).integers(start, start + length)
    assert part.dtype == np.int32
    assert part.tolist() == masks[:, start : start + length].sum(axis=0).tolist()


@pytest.mark.parametrize("num_masks", [127, 128, 255, 256, 32767, 32768, 65535, 65536, 131_070])
def test_all_of_one_mind_reach_the_end(num_masks: int) -> None:
    mask = np.array([[1, 0, 0, 1, 1, 1, 1, 1, 1]], np.bool_)
    counters, packed = BitPlanes(2), np.packbits(np.repeat(mask, GROUP, axis=0), axis=1, bitorder="little")
    for start in range(0, num_masks, GROUP):
        add(counters, packed[: num_masks - start])
    assert counters.integers(0, 9).tolist() == (num_masks * mask[0].astype(int)).tolist()


def test_sums_that_were_read_grow_on() -> None:
    masks = draw(200, 77, 3)
    counters = BitPlanes(10)
    for i, packed in enumerate(np.packbits(masks, axis=1, bitorder="little"), 1):
        add(counters, packed[None])
        assert counters.integers(0, 77).tolist() == masks[:i].sum(axis=0).tolist()


def test_memory_grows_with_the_logarithm_of_the_masks() -> None:
    assert len(count(draw(1000, 8, 5))._planes) == 10


def test_masks_that_come_one_by_one_make_no_more_planes() -> None:
    assert len(count(draw(16, 8, 5), portion=1)._planes) == 5


def test_more_masks_at_once_than_there_is_room_for_are_refused() -> None:
    with pytest.raises(LocalError, match="masks at once: got 17; wanted at most 16"):
        add(BitPlanes(1), np.zeros((17, 1), np.uint8))
