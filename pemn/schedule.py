"""A setting that changes from round to round."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

from pemn.errors import ConfigError, LocalError

Value = TypeVar("Value", int, float)
Other = TypeVar("Other", int, float)


@dataclass(frozen=True)
class Schedule(Generic[Value]):
    """A value for every round, from 1 on.

    Attributes:
        changes: From which round on, ascending from 1, which value; two that follow each other differ.
    """

    changes: tuple[tuple[int, Value], ...]

    def __post_init__(self) -> None:
        """Checks the order.

        Raises:
            LocalError: If there is no value for round 1, the rounds do not ascend, or a change changes nothing.
        """
        rounds = [round_ for round_, _ in self.changes]
        ascending = all(a < b for a, b in pairwise(rounds))
        if rounds[:1] != [1] or not ascending or any(a[1] == b[1] for a, b in pairwise(self.changes)):
            raise LocalError("schedule", got=self.changes, wanted="ascending rounds from 1, new values")

    @classmethod
    def always(cls, value: Value) -> Schedule[Value]:
        """Returns the schedule of one value."""
        return cls(((1, value),))

    @property
    def values(self) -> tuple[Value, ...]:
        """All values, in their order."""
        return tuple(value for _, value in self.changes)

    def at(self, round_: int) -> Value:
        """Returns the value of a round, from 1."""
        return [value for begin, value in self.changes if begin <= round_][-1]

    def map(self, change: Callable[[Value], Other]) -> Schedule[Other]:
        """Returns the schedule of other values; a change that has become none is left out."""
        changes: list[tuple[int, Other]] = []
        for round_, value in self.changes:
            if not changes or changes[-1][1] != change(value):
                changes.append((round_, change(value)))
        return Schedule(tuple(changes))


def parse_schedule(
    text: str, low: float, high: float, num_rounds: int, where: str | None = None
) -> Schedule[float]:
    """Reads `0.3`, or `0.3,12:0.1`: 0.3, and from round 12 on 0.1; or `0.3,60%:0.1`: 0.1 after 60 % of the rounds.

    Args:
        text: One value, then rounds or whole percents, and values.
        low: The least that a value may be.
        high: The greatest.
        num_rounds: Of the run.
        where: For errors, who has written it.

    Raises:
        ConfigError: If it is none, or a value is out of bounds.
    """
    values = f"values {low:g} .. {high:g}"
    wanted = f"VALUE or VALUE,WHEN:VALUE,... with {values} and ascending WHEN: rounds from 2, 1% .. 99%"
    first, *rest = text.split(",")
    try:
        changes = [(1, float(first))]
        for part in rest:
            when, value = part.split(":")
            round_ = _round_of(when, num_rounds)
            if when.endswith("%") and round_ == changes[-1][0]:  # the run has few rounds
                changes.pop()
                if changes[-1][1] == float(value):
                    continue
            changes.append((round_, float(value)))
        schedule = Schedule(tuple(changes))
    except (ValueError, LocalError) as error:
        raise ConfigError("schedule", got=repr(text), wanted=wanted, where=where) from error
    if not all(math.isfinite(value) and low <= value <= high for value in schedule.values):
        raise ConfigError("schedule", got=repr(text), wanted=wanted, where=where)
    return schedule


def _round_of(when: str, num_rounds: int) -> int:
    if not when.endswith("%"):
        return int(when)
    if not 1 <= (percent := int(when[:-1])) <= 99:
        raise ValueError
    return 1 - -percent * num_rounds // 100
