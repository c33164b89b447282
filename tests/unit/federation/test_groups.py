"""Which layers are coded as alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.federation.groups import MAX_GROUPS, LayerGroups

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=20).map(tuple)


def group_of_each(sizes: tuple[int, ...]) -> list[int]:
    count = min(len(sizes), MAX_GROUPS)
    return [layer * count // len(sizes) for layer, size in enumerate(sizes) for _ in range(size)]


@given(SIZES, st.data())
def test_every_weight_is_in_its_layers_group(sizes: tuple[int, ...], data: st.DataObject) -> None:
    groups, wanted = LayerGroups.of(sizes), group_of_each(sizes)
    start = data.draw(st.integers(0, len(wanted)))
    stop = data.draw(st.integers(start, len(wanted)))
    ids = groups.ids(start, stop)
    assert ids.dtype == np.uint16
    assert ids.tolist() == wanted[start:stop]


@given(SIZES)
def test_groups_are_neighbours_and_none_is_empty(sizes: tuple[int, ...]) -> None:
    ids = LayerGroups.of(sizes).ids(0, sum(sizes)).tolist()
    assert ids == sorted(ids)
    assert set(ids) == set(range(min(len(sizes), 8)))


@pytest.mark.parametrize(
    ("sizes", "restarts"),
    [
        ((1000,), ()),
        ((100, 28, 1, 64), (128, 128, 192)),  # groups from 100, 128 and 129 on
        ((1, 62, 1, 1), (64, 64, 64)),
        ((65, 1000), (128,)),
    ],
)
def test_blocks_begin_anew_at_the_next_64_of_a_group(
    sizes: tuple[int, ...], restarts: tuple[int, ...]
) -> None:
    assert LayerGroups.of(sizes).restarts == restarts


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20).map(tuple))
def test_every_group_but_the_first_begins_with_small_blocks(sizes: tuple[int, ...]) -> None:
    groups = LayerGroups.of(sizes)
    cuts = dict(groups.blocks())
    assert all(start % 64 == 0 for start in cuts)
    for end in groups.ends[:-1]:
        begin = (end + 63) // 64 * 64
        if begin < sum(sizes):
            assert begin < cuts[begin] <= begin + 64
