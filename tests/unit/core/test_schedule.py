"""Settings that change from round to round: what holds when, and what a person may write."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.errors import ConfigError, LocalError
from pemn.schedule import Schedule, parse_schedule


@st.composite
def schedules(draw: st.DrawFn) -> Schedule[int]:
    changes = [(1, draw(st.integers(0, 9)))]
    for round_ in sorted(draw(st.sets(st.integers(2, 30), max_size=6))):
        changes.append((round_, draw(st.integers(0, 9).filter(lambda value: value != changes[-1][1]))))
    return Schedule(tuple(changes))


@given(schedules(), st.integers(1, 40))
def test_a_value_holds_from_its_round_to_the_next(schedule: Schedule[int], last: int) -> None:
    by_round = dict(schedule.changes)
    value = by_round[1]
    for round_ in range(1, last + 1):
        value = by_round.get(round_, value)
        assert schedule.at(round_) == value
    assert schedule.values == tuple(by_round.values())


def test_one_value_holds_always() -> None:
    schedule = Schedule.always(0.3)
    assert (schedule.at(1), schedule.at(2**31 - 1)) == (0.3, 0.3)
    assert schedule == Schedule(((1, 0.3),))


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ((0, 1),),
        ((2, 1),),
        ((1, 1), (1, 2)),
        ((1, 1), (3, 2), (3, 1)),
        ((1, 1), (3, 2), (2, 1)),
        ((1, 1), (2, 1)),
        ((1, 1), (2, 3), (5, 3)),
    ],
)
def test_rounds_ascend_from_1_and_every_change_changes_something(
    changes: tuple[tuple[int, int], ...],
) -> None:
    with pytest.raises(LocalError, match=r"schedule: got .*; wanted ascending rounds from 1, new values"):
        Schedule(changes)


@given(schedules(), st.sampled_from([1, 2, 3, 100]))
def test_other_values_in_the_same_rounds(schedule: Schedule[int], divisor: int) -> None:
    mapped = schedule.map(lambda value: value // divisor)
    assert [mapped.at(round_) for round_ in range(1, 40)] == [
        schedule.at(round_) // divisor for round_ in range(1, 40)
    ]
    if divisor == 100:  # no change is left
        assert mapped == Schedule.always(0)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("0.3", ((1, 0.3),)),
        ("1", ((1, 1.0),)),
        ("3e-1", ((1, 0.3),)),
        ("0.3,12:0.1", ((1, 0.3), (12, 0.1))),
        ("0.3,2:0.1,100:0.3", ((1, 0.3), (2, 0.1), (100, 0.3))),
        ("0.001,9:1", ((1, 0.001), (9, 1.0))),  # both bounds
        ("0.3,60%:0.1", ((1, 0.3), (19, 0.1))),
        ("0.3,1%:0.1,99%:0.2", ((1, 0.3), (2, 0.1), (31, 0.2))),
        ("0.3,5:0.1,50%:0.2,20:0.4", ((1, 0.3), (5, 0.1), (16, 0.2), (20, 0.4))),
        ("0.3,61%:0.1,62%:0.2,63%:0.3,64%:0.4", ((1, 0.3), (21, 0.4))),  # three in one round
    ],
)
def test_what_a_person_writes(text: str, changes: tuple[tuple[int, float], ...]) -> None:
    assert parse_schedule(text, 0.001, 1, 30) == Schedule(changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "x",
        "0.3,",
        "0.3,12",
        "0.3,12:",
        "0.3,:0.1",
        "0.3,12:0.1:7",
        "0.3,1.5:0.1",
        "1:0.3",
        "0.3,1:0.1",
        "0.3,0:0.1",
        "0.3,-4:0.1",
        "0.3,12:0.1,12:0.2",
        "0.3,12:0.1,9:0.2",
        "0.3,12:0.3",
        "0.0009",
        "1.1",
        "0.3,12:1.1",
        "0.3,12:0",
        "-0.3",
        "nan",
        "0.3,12:nan",
        "inf",
        "1e999",
        "0.3;12:0.1",
        "0.3,0%:0.1",
        "0.3,100%:0.1",
        "0.3,-5%:0.1",
        "0.3,%:0.1",
        "0.3,60 %%:0.1",
        "0.3,20:0.1,60%:0.2",
        "0.3,19:0.2,60%:0.1,18:0.2",
        "60%:0.3",
    ],
)
def test_anything_else_is_named(text: str) -> None:
    wanted = (
        "VALUE or VALUE,WHEN:VALUE,... with values 0.001 .. 1 and ascending WHEN: rounds from 2, 1% .. 99%"
    )
    says = re.escape(f"schedule: got {text!r}; wanted {wanted}")
    with pytest.raises(ConfigError, match=f"^{says}$"):
        parse_schedule(text, 0.001, 1, 30)


@given(st.integers(1, 10_000), st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(sorted))
def test_a_share_of_the_run(num_rounds: int, percents: list[int]) -> None:
    """A value holds in all rounds that begin when at least so many percent of the run are over, and in no other."""
    text = ",".join(["1", *(f"{percent}%:{1 + percent}" for percent in percents)])
    schedule = parse_schedule(text, 1, 100, num_rounds)
    for round_ in {*range(1, min(num_rounds, 200) + 1), num_rounds}:
        over = [percent for percent in percents if 100 * (round_ - 1) >= percent * num_rounds]
        assert schedule.at(round_) == 1 + max(over, default=0)
