"""Which clients a round asks, where it asks only some."""

from __future__ import annotations

from pemn.generator import Purpose, child, permutation


def participants(seed: int, round_: int, num_slots: int, count: int) -> list[int]:
    """Returns the slots that a round asks, ascending: `count` of them, drawn without replacement.

    Args:
        seed: The run's seed.
        round_: Which round, from 1.
        num_slots: How many there are.
        count: How many to draw, at most `num_slots`.
    """
    order = permutation(child(seed, Purpose.PARTICIPANTS, round_), num_slots)
    return sorted(order[:count].tolist())
