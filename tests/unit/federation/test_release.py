"""Released masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.errors import MalformedFrame
from pemn.federation.contexts import start_buckets
from pemn.federation.groups import LayerGroups
from pemn.federation.levels import HALF, ONE, Levels, normal_start_levels, start_draws, start_table
from pemn.federation.release import _Contexts, decode_mask, edges_fit, encode_mask, start_edges
from pemn.mask import Mask
from pemn.schedule import Schedule
from pemn.wire.protocols import MaskProtocol

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=12).map(tuple)
SEED = 77


def protocol(spread: float) -> MaskProtocol:
    return MaskProtocol(32768, Schedule.always(1), 1, normal_start_levels(spread))


def trained(sizes: tuple[int, ...], spread: float, moved: float = 0.1) -> Mask:
    """A mask of which the given share has left the side on which it began."""
    levels = Levels(protocol(spread), SEED, sizes)
    start = levels.at(np.zeros(levels.num_params, np.int8)) > HALF
    return Mask.from_bits(start ^ (np.random.default_rng(1).random(start.size) < moved), sizes)


@given(SIZES, st.sampled_from([0.0, 0.5, 3.0, 30.0]), st.floats(0, 1))
def test_nothing_is_lost(sizes: tuple[int, ...], spread: float, moved: float) -> None:
    mask, edges = trained(sizes, spread, moved), start_edges(protocol(spread))
    assert decode_mask(encode_mask(mask, SEED, edges), sizes, SEED, edges) == mask


def test_nothing_is_lost_over_many_blocks() -> None:
    sizes = (100_001, 3, 77_777, 5)
    mask, edges = trained(sizes, 3.0), start_edges(protocol(3.0))
    assert decode_mask(encode_mask(mask, SEED, edges), sizes, SEED, edges) == mask


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0, 30.0])
def test_edges_are_where_the_start_level_enters_another_half_octave(spread: float) -> None:
    edges = start_edges(protocol(spread))
    buckets = start_buckets(start_table(protocol(spread).start_levels))
    assert edges == tuple(draw for draw in range(1, ONE) if buckets[draw] != buckets[draw - 1])
    assert 1 <= len(edges) <= 31


def test_without_spread_there_are_no_edges() -> None:
    assert start_edges(protocol(0)) == ()


def test_a_seeded_start_makes_a_mask_smaller_than_its_bits() -> None:
    n = 100_000
    mask, edges = trained((n,), 3.0), start_edges(protocol(3.0))
    # One bit in ten left its side: 0.469 bits a weight.
    assert 8 * len(encode_mask(mask, SEED, edges)) < 0.475 * n
    # The draw is what tells: without it, or by another seed's, the mask is a coin toss.
    for code in (encode_mask(mask, SEED, ()), encode_mask(mask, SEED + 1, edges)):
        assert n // 8 <= len(code) <= n // 8 + 1


@pytest.mark.parametrize("edges", [(), (1,), (65_535,), (1, 2), (1, 65_535), tuple(range(1, 32))])
def test_edges_that_part_the_draws_fit(edges: tuple[int, ...]) -> None:
    assert edges_fit(edges)
    mask = trained((70, 9), 3.0)
    assert decode_mask(encode_mask(mask, SEED, edges), (70, 9), SEED, edges) == mask


@pytest.mark.parametrize("edges", [(0,), (65_536,), (0, 5), (5, 65_536), (5, 5), (6, 5), (-1,)])
def test_edges_that_part_nothing_are_refused(edges: tuple[int, ...]) -> None:
    assert not edges_fit(edges)
    with pytest.raises(MalformedFrame, match=r"start edges: .* wanted ascending, 1 \.\. 65535"):
        decode_mask(encode_mask(trained((70, 9), 3.0), SEED, ()), (70, 9), SEED, edges)


@pytest.mark.parametrize("edges", [(), (1,), (1000, 40_000), (65_535,)])
def test_a_draw_belongs_to_the_edges_that_it_has_reached(edges: tuple[int, ...]) -> None:
    n = 5000
    contexts = _Contexts(SEED, edges, LayerGroups.of((2000, 3000))).block(0, n)
    draws = start_draws(SEED, 0, n).tolist()
    wanted = [2 * sum(edge <= draw for edge in edges) + (i >= 2000) for i, draw in enumerate(draws)]
    assert contexts.tolist() == wanted
    draws_at_an_edge = tuple(sorted({draws[7], draws[9]}))
    contexts = _Contexts(SEED, draws_at_an_edge, LayerGroups.of((n,))).block(0, n)
    assert contexts[[7, 9]].tolist() == [1 + draws_at_an_edge.index(draws[i]) for i in (7, 9)]


def test_layers_that_differ_are_told_apart() -> None:
    sizes = (30_000, 60_000)
    mask = Mask.from_bits(np.random.default_rng(1).random(90_000) < np.repeat([0.05, 0.95], sizes), sizes)
    assert 8 * len(encode_mask(mask, SEED, ())) < 0.42 * 90_000  # h(0.05) = 0.286; in one context 0.92


def test_draws_of_a_block_are_a_part_of_the_whole() -> None:
    assert np.array_equal(start_draws(SEED, 100, 1000), start_draws(SEED, 0, 2000)[100:1000])


@given(st.binary(max_size=40), st.sampled_from([0.0, 3.0]))
def test_garbage_is_refused_or_canonical(garbage: bytes, spread: float) -> None:
    edges = start_edges(protocol(spread))
    try:
        mask = decode_mask(garbage, (70, 9), SEED, edges)
    except MalformedFrame:
        return
    assert encode_mask(mask, SEED, edges) == garbage


@given(st.data())
def test_damage_is_refused_or_another_mask(data: st.DataObject) -> None:
    sizes, edges = (900, 33), start_edges(protocol(3.0))
    coded = bytearray(encode_mask(trained(sizes, 3.0), SEED, edges))
    coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        mask = decode_mask(bytes(coded), sizes, SEED, edges)
    except MalformedFrame:
        return
    assert encode_mask(mask, SEED, edges) == bytes(coded)
