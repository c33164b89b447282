"""Which coder is taken: docs/wire.md, "Coded decisions"."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from pemn.codec import Coder, Reader, blocks, rans, rice
from pemn.codec.model import ContextModel
from pemn.errors import MalformedFrame
from tests.unit.codec.sequences import Sequence, draw, sequences


def one_context(decisions: NDArray[np.bool_]) -> Sequence:
    return Sequence(decisions[None], np.zeros((1, decisions.size), np.uint16))


def costs(sequence: Sequence) -> list[int]:
    """The cost, in whole bits, after each block."""
    model, out = ContextModel(sequence.shape), []
    for block in blocks(sequence.num_weights, sequence.restarts):
        for part in sequence.decide(*block):
            model.count(*part)
        model.adapt()
        out.append(model.cost)
    return out


def num_lanes(cost: int) -> int:
    enough = min(max((cost - 32_768) // 3072, 1), 32)
    return min(max(cost // 6400, enough), 4096)


def estimates(sequence: Sequence) -> dict[Coder, int]:
    """The table of the document; no entry for a coder that is out."""
    bounds = blocks(sequence.num_weights, sequence.restarts)
    parts = [part for block in bounds for part, _ in sequence.decide(*block)]
    decisions = np.concatenate([*parts, np.empty(0, np.bool_)])
    cost, ones = [0, *costs(sequence)][-1], np.flatnonzero(decisions)
    sizes = {Coder.RAW: (decisions.size + 7) // 8, Coder.RANS: 3 * num_lanes(cost) + cost // 8 + 3}
    return sizes | ({Coder.RICE: len(rice.encode(ones))} if ones.size <= 4096 else {})


@given(sequences(6000))
def test_the_coder_with_the_smallest_estimate_is_taken(sequence: Sequence) -> None:
    sizes = estimates(sequence)
    coded = sequence.encode()
    assert coded[0] == min(sorted(sizes), key=lambda coder: sizes[coder])
    if coded[0] != Coder.RANS:
        assert len(coded) == 1 + sizes[Coder(coded[0])]


@pytest.mark.parametrize("num_lanes", [1, 3])
def test_rans_is_taken_where_its_estimate_is_a_byte_shorter_than_raw(num_lanes: int) -> None:
    """Coin tosses, and before them zeros that rANS, in a context of their own, codes as next to nothing."""
    num_tosses = 6400 * num_lanes
    tosses = np.random.default_rng(1).random(num_tosses) < 0.5
    taken = {}
    for num_zeros in range(0, 1200, 8):
        decisions = np.concatenate([np.zeros(num_zeros, np.bool_), tosses])
        contexts = (np.arange(decisions.size) >= num_zeros).astype(np.uint16)
        sequence = Sequence(decisions[None], contexts[None], (2,), (num_zeros,))
        sizes = estimates(sequence)
        saved = sizes[Coder.RAW] - sizes[Coder.RANS]
        if abs(saved) <= 3:
            taken[saved] = sequence.encode()[:2]
    rans_code = bytes([Coder.RANS, num_lanes])
    assert {0, 1} < taken.keys()
    assert all((code == rans_code) == (saved > 0) for saved, code in taken.items())


def test_rans_is_estimated_at_six_bytes_more_than_its_cost() -> None:
    """64 ones cost a bit each, some more next to nothing: 3 + 64 // 8 + 3 = 14 bytes, as much as 112 raw bits."""
    assert [costs(one_context(np.ones(n, np.bool_)))[-1] for n in (64, 112, 113)] == [64, 65, 65]
    assert one_context(np.ones(112, np.bool_)).encode() == bytes([Coder.RAW]) + b"\xff" * 14
    assert one_context(np.ones(113, np.bool_)).encode()[0] == Coder.RANS


@settings(max_examples=40)
@given(sequences(20_000))
def test_a_code_of_rans_is_as_long_as_the_estimate_but_for_its_lanes(sequence: Sequence) -> None:
    """The first state of a lane, 4 bytes, holds 0 to 2 bytes of the message; the estimate says 1."""
    coded = sequence.encode()
    if coded[0] == Coder.RANS:
        estimate = estimates(sequence)[Coder.RANS]
        lanes = num_lanes(costs(sequence)[-1])
        assert abs(len(coded) - 1 - estimate) <= lanes + 3


@pytest.mark.parametrize(("num_ones", "coder"), [(4095, Coder.RICE), (4096, Coder.RICE), (4097, Coder.RANS)])
def test_rice_is_out_above_4096_ones(num_ones: int, coder: Coder) -> None:
    """Every eighth decision is a one: four bits each as a Rice code, 4.35 by their share."""
    decisions = np.arange(8 * num_ones) % 8 == 7
    sequence = one_context(decisions)
    coded = sequence.encode()
    assert coded[0] == coder
    assert sequence.decode(coded).same(sequence)
    if coder == Coder.RICE:
        assert len(coded) == 1 + 2 + 1 + -(-num_ones * 4 // 8)


def test_a_reader_takes_no_rice_code_of_more_than_4096_ones() -> None:
    codes = [bytes([Coder.RICE]) + rice.encode(np.arange(0, 8 * num_ones, 8)) for num_ones in (4096, 4097)]
    assert Reader(codes[0], ()).read(np.zeros(40_000, np.uint16)).sum() == 4096
    with pytest.raises(MalformedFrame, match="number: got 4097; wanted <= 4096"):
        Reader(codes[1], ())


def test_a_code_with_too_few_lanes_ends_at_the_first_block_that_shows_it() -> None:
    sequence = draw(2, 150_000, 0.2)
    with mock.patch.object(rans, "num_lanes", return_value=1):
        coded = sequence.encode()
    assert coded[:2] == bytes([Coder.RANS, 1])
    reader, num_read, bounds = Reader(coded, sequence.shape), 0, list(blocks(sequence.num_weights))

    def read_all() -> None:
        nonlocal num_read
        for start, stop in bounds:
            reader.read(sequence.contexts[0, start:stop])
            num_read += 1
            reader.end_block()

    with pytest.raises(MalformedFrame, match="lanes: got 1; wanted more"):
        read_all()
    before, here = costs(sequence)[num_read - 2 : num_read]
    assert before < 12_800 <= here  # two lanes
    assert num_read < len(bounds) - 2
