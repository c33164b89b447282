"""Which layers are coded as alike."""

from __future__ import annotations

import numpy as np
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
