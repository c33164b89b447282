"""What a person sees of a run while it goes on: one line a round, and a line that moves on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.status import Status


@dataclass(frozen=True)
class RoundReport:
    """What became of a round.

    Attributes:
        round: From 1.
        num_rounds: Of the run.
        num_votes: Clients whose votes counted.
        num_clients: Clients that were asked.
        accuracy: On the test split, 0 .. 1.
        up_bytes: On the wire in this round, from the clients.
        down_bytes: The same, to them.
        saving: How many times fewer bytes than FedAvg, since the run began.
    """

    round: int
    num_rounds: int
    num_votes: int
    num_clients: int
    accuracy: float
    up_bytes: int
    down_bytes: int
    saving: float


class Progress:
    """Prints the run's progress.

    Args:
        console: Where to; a moving line is shown on terminals only.
        clock: Seconds, for the time that is left.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._status: Status | None = None
        self._round_ends: list[float] = []

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints a line about something that went wrong and was dealt with."""
        self._console.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def waiting(self, num_here: int, num_wanted: int) -> None:
        """Says how many clients have come."""
        self._update(f"waiting for clients: {num_here} of {num_wanted} here", always=True)

    def training(self, round_: int, num_votes: int, num_clients: int) -> None:
        """Says how far a round is."""
        self._update(f"round {round_}: votes of {num_votes} of {num_clients} clients")

    def round_done(self, report: RoundReport) -> None:
        """Prints the line of a round."""
        width = len(str(report.num_rounds))
        self.say(
            f"round {report.round:{width}}/{report.num_rounds}  clients {report.num_votes}/{report.num_clients}"
            f"  test accuracy {report.accuracy:.4f}  up {size(report.up_bytes)}  down {size(report.down_bytes)}"
            f"  {report.saving:.0f} times fewer bytes than FedAvg{self._time_left(report)}"
        )

    def _time_left(self, report: RoundReport) -> str:
        # The first round is no measure: libraries load and caches fill in it.
        ends = self._round_ends
        ends.append(self._clock())
        rounds_left = report.num_rounds - report.round
        if len(ends) < 2 or rounds_left == 0:
            return ""
        seconds = (ends[-1] - ends[0]) / (len(ends) - 1) * rounds_left
        return f"  about {int(seconds) // 60}:{int(seconds) % 60:02} left"

    def _update(self, text: str, always: bool = False) -> None:
        if self._status:
            self._status.update(text)
        elif always:
            self.say(text)


def size(num_bytes: float) -> str:
    """Returns a number of bytes as a person reads it: decimal prefixes, three digits."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"
