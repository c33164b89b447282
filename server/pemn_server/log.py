"""Where a server's lines go: text for a person, or JSON for a program that collects logs."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any, TextIO

from rich.console import Console
from rich.status import Status

from pemn.console import printable


class Log:
    """Lines of text.

    Args:
        console: Where to; a moving line is shown on terminals only.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str, *, is_warning: bool = False, **facts: Any) -> None:
        """Writes a line.

        Args:
            text: For a person.
            is_warning: Whether it is about something that went wrong.
            facts: The same for a program.
        """
        self._console.print(
            f"warning: {printable(text)}" if is_warning else printable(text),
            style="yellow" if is_warning else None,
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def moving_line(self) -> Status | None:
        """Returns a line that can change, not yet started; None where there is no terminal."""
        return self._console.status("starting") if self._console.is_terminal else None


class JsonLog(Log):
    """A JSON object a line: `time` (ISO 8601, UTC), `level`, `text`, and facts by their names.

    Args:
        file: Where to.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def say(self, text: str, *, is_warning: bool = False, **facts: Any) -> None:
        """See `Log`."""
        line = _line("warning" if is_warning else "info", text, facts)
        print(line, file=self._file, flush=True)

    def moving_line(self) -> None:
        """See `Log`."""
        return


class JsonFormatter(logging.Formatter):
    """What Python's own logging says, in the same form."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        facts = {"logger": record.name}
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        return _line(record.levelname.lower(), record.getMessage(), facts)


def _line(level: str, text: str, facts: dict[str, Any]) -> str:
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "text": text, **facts})
