"""What a person sees."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pemn.errors import MalformedFrame
from pemn_server.log import Log
from pemn_server.progress import Progress, RoundReport, size, times_fewer
from pemn_server.status import RunStatus


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (7, "7 B"), (999, "999 B"), (1000, "1 kB"), (43_210, "43.2 kB"), (999_499, "999 kB"),
     (999_600, "1 MB"), (40_600_000, "40.6 MB"), (5.2e9, "5.2 GB")],
)  # fmt: skip
def test_sizes(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text


def test_a_round_is_one_line_with_all_that_matters() -> None:
    times = iter([100.0, 110.0, 120.0])
    out = io.StringIO()
    with Progress(Log(Console(file=out, width=60)), clock=lambda: next(times)) as progress:
        for round_ in (1, 2, 3):
            progress.round_done(RoundReport(round_, 20, 3, 4, 0.91237, 4321, 5678, 9876, 8765, 63.4))
    first, _, line = out.getvalue().splitlines()
    assert "left" not in first
    for part in (
        " 3/20",
        "clients 3/4",
        "0.9124",
        "up 4.32 kB",
        "down 5.68 kB",
        "63 times fewer",
        "about 2:50 left",
    ):
        assert part in line


def test_what_a_person_sees_is_noted_for_whoever_asks() -> None:
    status = RunStatus(0xAB, 20, lambda: [0, 2], clock=lambda: 5.0)
    with Progress(Log(Console(file=io.StringIO())), status) as progress:
        progress.waiting([2], 3)
        assert status.snapshot()["phase"] == "waiting for clients"
        progress.training(1, 2, 3)
        progress.refused(2, MalformedFrame("no vote"))
        progress.round_done(RoundReport(1, 20, 3, 4, 0.91237, 4321, 5678, 9876, 8765, 63.4))
    assert status.snapshot() == {
        "run_id": "00000000000000ab",
        "phase": "round 1",
        "round": 1,
        "num_rounds": 20,
        "votes": 2,
        "asked": 3,
        "clients": [0, 2],
        "accuracy": 0.91237,
        "uplink_bytes": 9876,
        "downlink_bytes": 8765,
        "refused": {"MalformedFrame": 1},
        "spent": {"decode": 0.0, "tally": 0.0},
        "seconds": 0.0,
    }


def test_waiting_is_shown_where_no_line_can_move() -> None:
    out = io.StringIO()
    with Progress(Log(Console(file=out))) as progress:
        progress.waiting([2], 3)
        progress.waiting([2], 3)
        progress.training(1, 0, 3)
    assert out.getvalue() == "waiting for clients: 1 of 3 here (number 2)\n"


def test_foreign_text_is_no_markup() -> None:
    out = io.StringIO()
    with Progress(Log(Console(file=out, width=80))) as progress:
        progress.warn("client 0: says [red]data[/red] set [/]")
    assert "[red]data[/red]" in out.getvalue()


def test_a_client_cannot_write_over_the_terminal() -> None:
    out = io.StringIO()
    with Progress(Log(Console(file=out, width=80))) as progress:
        progress.warn("client 0: says \x1b[2J\x1b]0;owned\x07 round 20/20")
        progress.say("client 0: \x1b[31m")
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()


@pytest.mark.parametrize(
    ("saving", "text"),
    [
        (96.6, "97 times fewer"),
        (9.96, "10.0 times fewer"),
        (1.0, "1.0 times fewer"),
        (0.25, "4.0 times MORE"),
    ],
)
def test_savings_in_words(saving: float, text: str) -> None:
    assert times_fewer(saving).startswith(text)
