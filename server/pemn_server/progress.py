"""What a person sees of a run while it goes on: one line a round, and a line that moves on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.status import Status

from pemn.errors import PemnError
from pemn_server.log import Log
from pemn_server.status import RunStatus

_REMINDER_S = 60.0


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
        total_up_bytes: The same, since the run began.
        total_down_bytes: The same.
        saving: How many times fewer bytes than FedAvg, since the run began.
    """

    round: int
    num_rounds: int
    num_votes: int
    num_clients: int
    accuracy: float
    up_bytes: int
    down_bytes: int
    total_up_bytes: int
    total_down_bytes: int
    saving: float


class Progress:
    """Prints the run's progress, and notes it for whoever asks.

    Args:
        log: Where to.
        status: Where it is noted.
        clock: Seconds, for the time that is left.
    """

    def __init__(
        self,
        log: Log,
        status: RunStatus | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._noted, self._clock = log, status or RunStatus(0, 0), clock
        self._status: Status | None = None
        self._round_ends: list[float] = []
        self._waiting_text, self._waiting_said = "", 0.0

    def __enter__(self) -> Progress:
        self._status = self._log.moving_line()
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def say(self, text: str, **facts: Any) -> None:
        """Prints a line."""
        self._log.say(text, **facts)

    def warn(self, text: str) -> None:
        """Prints a line about something that went wrong and was dealt with."""
        self._log.say(text, is_warning=True)

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Notes how long the block takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._noted.spent(work, time.monotonic() - began)

    def refused(self, slot: int, error: PemnError) -> None:
        """Prints why what a client has sent does not count."""
        self._noted.refused(error)
        self.warn(f"client {slot}: {error}")

    def step(self, text: str) -> None:
        """Says what is done next, in the line that moves too."""
        self._noted.put(phase=text)
        self.say(text)
        if self._status:
            self._status.update(text)

    def waiting(self, ready: list[int], num_wanted: int) -> None:
        """Says which clients are here: when that changes, and every minute."""
        self._noted.put(phase="waiting for clients")
        names = f" (number {', '.join(map(str, ready))})" if ready else ""
        text = f"waiting for clients: {len(ready)} of {num_wanted} here{names}"
        if self._status:
            self._status.update(text)
        elif text != self._waiting_text or self._clock() - self._waiting_said >= _REMINDER_S:
            self.say(text)
            self._waiting_text, self._waiting_said = text, self._clock()

    def training(self, round_: int, num_votes: int, num_clients: int) -> None:
        """Says how far a round is."""
        self._noted.put(phase=f"round {round_}", votes=num_votes, asked=num_clients)
        if self._status:
            self._status.update(f"round {round_}: votes of {num_votes} of {num_clients} clients")

    def round_done(self, report: RoundReport) -> None:
        """Prints the line of a round."""
        self._noted.put(
            round=report.round,
            accuracy=report.accuracy,
            uplink_bytes=report.total_up_bytes,
            downlink_bytes=report.total_down_bytes,
        )
        width = len(str(report.num_rounds))
        self.say(
            f"round {report.round:{width}}/{report.num_rounds}  clients {report.num_votes}/{report.num_clients}"
            f"  test accuracy {report.accuracy:.4f}  up {size(report.up_bytes)}  down {size(report.down_bytes)}"
            f"  so far {times_fewer(report.saving)}{self._time_left(report)}",
            **asdict(report),
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


def times_fewer(saving: float) -> str:
    """Returns how FedAvg's bytes compare with ours, in words."""
    if saving < 1:
        return f"{1 / saving:.1f} times MORE bytes than FedAvg"
    return f"{saving:.{0 if saving >= 10 else 1}f} times fewer bytes than FedAvg"


def size(num_bytes: float) -> str:
    """Returns a number of bytes as a person reads it: decimal prefixes, three digits."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} GB"
