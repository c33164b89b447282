"""Which clients a round asks, where it asks only some."""

from __future__ import annotations

from collections.abc import Container
from itertools import islice

from pemn.generator import Purpose, child, permutation


def participants(seed: int, round_: int, num_slots: int, count: int, here: Container[int]) -> list[int]:
    """Returns the slots that a round asks, in the order drawn: without replacement, of those that are here.

    Args:
        seed: The run's seed.
        round_: Which round, from 1.
        num_slots: How many there are.
        count: How many to draw; fewer are drawn where fewer are here.
        here: Those that can be asked.
    """
    order = permutation(child(seed, Purpose.PARTICIPANTS, round_), num_slots)
    return list(islice((slot for slot in order.tolist() if slot in here), count))
