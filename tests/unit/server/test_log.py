"""A server's lines, for a person and for a program."""

from __future__ import annotations

import datetime
import io
import json
import logging
import sys

from rich.console import Console

from pemn_server.log import JsonFormatter, JsonLog, Log
from pemn_server.progress import Progress, RoundReport


def test_text_is_for_a_person() -> None:
    out = io.StringIO()
    log = Log(Console(file=out, width=40))
    log.say("a line [b]that is longer than the console is wide[/b], and no markup", round=3)
    log.say("look \x1b[2J out", is_warning=True)
    first, second = out.getvalue().splitlines()
    assert first == "a line [b]that is longer than the console is wide[/b], and no markup"
    assert second.startswith("warning: look ")
    assert "\x1b" not in second


def test_every_line_is_an_object_with_all_facts() -> None:
    out = io.StringIO()
    log = JsonLog(out)
    with Progress(log) as progress:
        progress.step("writing")
        progress.warn("client 0: says \x1b[2J\nno")
        progress.round_done(RoundReport(3, 20, 2, 4, 0.5, 10, 20, 30, 40, 9.5))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "info"]
    assert (
        lines[1]["text"] == "client 0: says \x1b[2J\nno"
    )  # JSON, so nothing of it reaches a terminal as it is
    assert "\x1b" not in out.getvalue()
    assert lines[2]["round"] == 3
    assert lines[2]["accuracy"] == 0.5
    for line in lines:
        when = datetime.datetime.fromisoformat(line["time"])
        assert abs(datetime.datetime.now(datetime.UTC) - when) < datetime.timedelta(minutes=1)


def test_what_other_packages_log_is_in_the_same_form() -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        record = logging.LogRecord("pemn.x", logging.ERROR, __file__, 1, "%d of %d", (1, 2), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["text"], line["logger"]) == ("error", "1 of 2", "pemn.x")
    assert "ZeroDivisionError" in line["traceback"]
