"""Runs side by side: what is one row, what can be compared, and what is said of it."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest

from pemn.errors import ConfigError, FileError
from pemn.report.comparison import Run, tables
from pemn.report.comparison_files import files

Lines = list[dict[str, Any]]


def _run(summary: dict[str, Any], ledger: Lines, **changed: Any) -> Run:
    return Run.of(summary | changed, ledger)


@pytest.fixture
def fedavg(summary: dict[str, Any], ledger: Lines) -> Run:
    """Ten times the bytes, more accurate."""
    dear = [line | {"wire": 10 * line["wire"]} for line in ledger]
    accuracies = [0.5, 0.89, 0.93, 0.94]
    return _run(
        summary, dear, label="fedavg", method="fedavg", accuracy=0.94, accuracy_by_round=accuracies, seed=1
    )


def test_runs_that_differ_in_the_seed_alone_are_one_row(summary: dict[str, Any], ledger: Lines) -> None:
    runs = [_run(summary, ledger, seed=seed, accuracy=0.9 + seed / 100) for seed in (2, 1, 3)]
    ((row,),) = [table.rows for table in tables(runs)]
    assert [run.summary["seed"] for run in row.runs] == [1, 2, 3]
    assert row.accuracy == pytest.approx(0.92)
    assert row.deviation == pytest.approx(0.01)


@pytest.mark.parametrize(
    "changed",
    [
        {"dataset": "cifar10"},
        {"partition": "iid"},
        {"num_clients": 4},
        {"epochs": 5},
        {"num_images": 100},
        {"model": "mlp-65"},
        {"client_rounds": 8},
    ],
)
def test_runs_that_differ_in_more_are_not_compared(
    summary: dict[str, Any], ledger: Lines, changed: dict[str, Any]
) -> None:
    found = tables([_run(summary, ledger), _run(summary, ledger, **changed)])
    assert [len(table.rows) for table in found] == [1, 1]


def test_two_runs_of_one_row_and_seed_are_refused(summary: dict[str, Any], ledger: Lines) -> None:
    with pytest.raises(ConfigError, match="two runs of one row and seed"):
        tables([_run(summary, ledger), _run(summary, ledger)])


def test_a_summary_that_is_none_is_refused(summary: dict[str, Any], ledger: Lines) -> None:
    with pytest.raises(FileError, match="wrong type"):
        _run(summary, ledger, accuracy="much")


def test_bytes_are_those_of_the_ledger(summary: dict[str, Any], ledger: Lines) -> None:
    run = _run(summary, ledger)
    assert run.num_bytes == sum(line["wire"] for line in ledger)
    until_2 = sum(line["wire"] for line in ledger if line["round"] <= 2)
    assert run.so_far[1] == until_2
    assert run.bytes_to(0.7) == until_2
    assert run.bytes_to(0.95) is None
    # Bits of all rounds, joining and the final broadcast come to the whole.
    whole = (run.mean_bits("up") + run.mean_bits("down")) * summary["num_params"] * summary["client_rounds"]
    assert whole == pytest.approx(8 * run.num_bytes)
    up_1 = sum(line["wire"] for line in ledger if line["round"] == 1 and line["direction"] == "up")
    assert run.bits("up")[0] == pytest.approx(8 * up_1 / 3 / summary["num_params"])


def test_what_is_saved_is_told_by_the_bytes_of_fedavg(
    summary: dict[str, Any], ledger: Lines, fedavg: Run
) -> None:
    (table,) = tables([_run(summary, ledger, accuracy=0.93), fedavg])
    mask, reference = table.rows
    assert table.reference is reference
    assert table.target == pytest.approx(0.92)
    assert table.times_fewer(mask) == pytest.approx(10)
    assert table.times_fewer_to_target(mask) is None  # no round of it had 92 %
    (easier,) = tables([_run(summary, ledger), fedavg], wanted=0.85)
    # fedavg has 85 % after its second round, mask after its third.
    ours, theirs = _run(summary, ledger).so_far[2], fedavg.so_far[1]
    assert easier.times_fewer_to_target(easier.rows[0]) == pytest.approx(theirs / ours)


def test_without_fedavg_the_best_is_what_is_to_be_reached(summary: dict[str, Any], ledger: Lines) -> None:
    (table,) = tables(
        [_run(summary, ledger, accuracy=0.9), _run(summary, ledger, accuracy=0.8, label="other")]
    )
    assert table.target == pytest.approx(0.88)
    assert table.times_fewer(table.rows[0]) is None


def test_the_files_say_what_the_runs_did(summary: dict[str, Any], ledger: Lines, fedavg: Run) -> None:
    wide = [_run(summary, ledger, model="mlp-65", seed=seed) for seed in (1, 2)]
    found = tables([_run(summary, ledger, label="<b>mask</b>"), fedavg, *wide])
    made = files("A & B", found)
    rows = list(csv.DictReader(io.StringIO(made["comparison.csv"].decode())))
    assert [(row["label"], row["model"], row["seed"]) for row in rows] == [
        ("<b>mask</b>", "mlp-64", str(2**64 - 59)),
        ("fedavg", "mlp-64", "1"),
        ("mask", "mlp-65", "1"),
        ("mask", "mlp-65", "2"),
    ]
    assert rows[1]["bytes"] == str(fedavg.num_bytes)
    rounds = list(csv.DictReader(io.StringIO(made["rounds.csv"].decode())))
    assert len(rounds) == 4 * 4
    assert rounds[5]["accuracy"] == "0.89"
    page = made["report.html"].decode()
    assert "<b>mask</b>" not in page
    assert "A &amp; B" in page
    assert not re.search(r'(src|href)="(?!#)', page)  # nothing from elsewhere
    assert page.count("<svg") == 2 * 6 + 1  # the plots of two networks, and the front
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "94.0" in made["comparison.md"].decode()
    assert made["1-mlp-64.png"].startswith(b"\x89PNG")
    assert {"1-front.svg", "1-mlp-65.svg"} <= made.keys()
    assert files("A & B", found) == made  # the same bytes every time


def test_a_method_that_never_gets_there_is_drawn_as_such(summary: dict[str, Any], ledger: Lines) -> None:
    made = files("x", tables([_run(summary, ledger, accuracy=0.95)], wanted=0.99)[:1])
    assert "not reached" in made["report.html"].decode()
    assert "not reached" in made["comparison.md"].decode()
