"""Packed masks."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pemn.mask as mask_module
from pemn.errors import LocalError
from pemn.mask import Mask, packed_bytes, untied

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5).map(tuple)


def draw(sizes: tuple[int, ...], seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.random.default_rng(seed).random(sum(sizes)) < 0.4


@given(SIZES, st.integers(0, 1000))
def test_packing_loses_nothing(sizes: tuple[int, ...], seed: int) -> None:
    bits = draw(sizes, seed)
    mask = Mask.from_bits(bits, sizes)
    assert np.array_equal(mask.bits(), bits)
    assert mask.packed.size == packed_bytes(sizes)
    assert mask.num_kept == bits.sum()
    assert mask.density == pytest.approx(bits.mean())


@given(SIZES, st.integers(0, 1000), st.sampled_from([1, 2, 1 << 16]))
def test_flat_bits_have_no_padding_between_layers(sizes: tuple[int, ...], seed: int, piece: int) -> None:
    bits = draw(sizes, seed)
    with mock.patch.object(mask_module, "_PIECE_BYTES", piece):
        flat = Mask.from_bits(bits, sizes).flat()
        back = Mask.from_flat(flat, sizes)
    whole = np.unpackbits(flat, bitorder="little")
    assert flat.size == -(-bits.size // 8)
    assert whole[: bits.size].tolist() == bits.tolist()
    assert not whole[bits.size :].any()
    assert back == Mask.from_bits(bits, sizes)


@pytest.mark.parametrize("flat", [[], [1], [1, 2, 3]])
def test_flat_bits_of_another_number_of_weights_are_refused(flat: list[int]) -> None:
    with pytest.raises(LocalError, match=r"flat mask: got uint8 .*; wanted uint8 \(2,\)"):
        Mask.from_flat(np.array(flat, np.uint8), (3, 9))


@given(SIZES, st.integers(0, 1000), st.integers(0, 1000))
def test_xor(sizes: tuple[int, ...], one: int, two: int) -> None:
    a, b = Mask.from_bits(draw(sizes, one), sizes), Mask.from_bits(draw(sizes, two), sizes)
    assert np.array_equal((a ^ b).bits(), a.bits() ^ b.bits())
    assert (a ^ b) ^ b == a
    assert (a == b) == (a.sha256 == b.sha256)


def test_every_layer_starts_on_a_byte() -> None:
    mask = Mask.from_bits(np.ones(12, np.bool_), (3, 9))
    assert mask.packed.tolist() == [0b111, 0xFF, 1]
    assert mask.layer(1).tolist() == [0xFF, 1]


@pytest.mark.parametrize("packed", [[0b1111], [0b111, 0], []])
def test_bytes_that_do_not_fit_are_refused(packed: list[int]) -> None:
    with pytest.raises(LocalError, match="packed mask"):
        Mask((3,), np.array(packed, np.uint8))


def test_masks_of_two_networks_do_not_mix() -> None:
    with pytest.raises(LocalError, match="two networks"):
        _ = Mask.from_bits(np.ones(3, np.bool_), (3,)) ^ Mask.from_bits(np.ones(3, np.bool_), (1, 2))


def test_a_mask_does_not_change() -> None:
    mask = Mask.from_bits(np.ones(3, np.bool_), (3,))
    with pytest.raises(ValueError, match="read-only"):
        mask.packed[0] = 0


TIES = st.integers(1, 50)


@given(SIZES, TIES, st.integers(0, 1000))
def test_of_the_weights_that_share_a_bit_every_other_is_kept(
    sizes: tuple[int, ...], tie: int, seed: int
) -> None:
    counts = [-(-size // tie) for size in sizes]
    mask = Mask.from_bits(draw(tuple(counts), seed), counts)
    whole = untied(mask, sizes, tie)
    assert whole.sizes == sizes
    bits, weights = mask.bits(), whole.bits()
    for size, count in zip(sizes, counts, strict=True):
        layer, bits = bits[:count], bits[count:]
        kept, weights = weights[:size], weights[size:]
        for i in range(count):
            shared = kept[i::count].tolist()
            assert len(shared) <= tie
            assert shared == [bool(layer[i]) ^ bool(turn % 2) for turn in range(len(shared))]
            # Half of them, whatever the bit is; of an odd number the one that is left over has it.
            assert sum(shared) == len(shared) // 2 + (len(shared) % 2 and layer[i])


def test_bits_that_nobody_shares_are_those_of_the_weights() -> None:
    mask = Mask.from_bits(draw((9, 3), 1), (9, 3))
    assert untied(mask, (9, 3), 1) is mask


@pytest.mark.parametrize("tie", [1, 2, 5])
def test_the_tied_mask_of_another_network_is_refused(tie: int) -> None:
    with pytest.raises(LocalError, match=r"mask of another network: got \(3, 1\); wanted"):
        untied(Mask.from_bits(draw((3, 1), 1), (3, 1)), (9, 3), tie)
