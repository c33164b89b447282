"""Who is asked, where only some are."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pemn.methods.participants import participants


@given(st.integers(0, 2**64 - 1), st.integers(1, 1000), st.integers(1, 60), st.data())
def test_so_many_and_none_twice(seed: int, round_: int, num_slots: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, num_slots))
    here = data.draw(st.sets(st.integers(0, num_slots - 1)))
    found = participants(seed, round_, num_slots, count, here)
    assert len(found) == len(set(found)) == min(count, len(here))
    assert set(found) <= here
    assert participants(seed, round_, num_slots, count, here) == found
    assert participants(seed, round_, num_slots, num_slots, here)[:count] == found  # asking more keeps these


def test_everybody_is_asked_as_often() -> None:
    everybody = range(20)
    asked = Counter(slot for round_ in range(1, 2001) for slot in participants(7, round_, 20, 5, everybody))
    assert min(asked.values()) > 400
    assert max(asked.values()) < 600
    first = Counter(participants(7, round_, 20, 5, everybody)[0] for round_ in range(1, 2001))
    assert min(first.values()) > 60
