"""Where a run is: written by the run and by the link, read by whoever asks, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pemn.errors import PemnError

WORKS = ("decode", "tally")
"""Kinds of work whose time is counted."""


class RunStatus:
    """What an operator wants to know of a run.

    Args:
        run_id: 64-bit id of the run.
        num_rounds: Of the run.
        slots: Returns the slots of the clients that are here.
        clock: Seconds, for how long the run has been going on here.
    """

    def __init__(
        self,
        run_id: int,
        num_rounds: int,
        slots: Callable[[], list[int]] = list,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.Lock()
        self._slots, self._clock, self._began = slots, clock, clock()
        self._refused: Counter[str] = Counter()
        self._spent = dict.fromkeys(WORKS, 0.0)
        self._values: dict[str, Any] = {
            "run_id": f"{run_id:016x}",
            "num_rounds": num_rounds,
            "phase": "starting",
            "round": 0,
            "votes": 0,
            "asked": 0,
            "accuracy": None,
            "uplink_bytes": 0,
            "downlink_bytes": 0,
        }

    def put(self, **values: Any) -> None:
        """Changes what is known; see `snapshot` for the names."""
        with self._lock:
            self._values.update(values)

    def spent(self, work: str, seconds: float) -> None:
        """Adds to the time that a kind of work has taken."""
        with self._lock:
            self._spent[work] += seconds

    def refused(self, error: PemnError) -> None:
        """Counts a message or a client that was refused, by its cause."""
        with self._lock:
            self._refused[type(error).__name__] += 1

    def snapshot(self) -> dict[str, Any]:
        """Returns all of it.

        Returns:
            `run_id` (hex), `phase` (a word or two), `round` (the last that was closed), `num_rounds`, `votes` and
            `asked` (of the round that goes on), `clients` (slots that are here), `accuracy` (of the last round, 0 .. 1,
            or None), `uplink_bytes` and `downlink_bytes` (on the wire, up to the last round),
            `refused` (counts by the name of the error), `spent` (seconds of `decode`, reading votes, and of `tally`,
            making a round's public state of them), `seconds` (since this process began).
        """
        clients = self._slots()
        with self._lock:
            return {
                **self._values,
                "clients": clients,
                "refused": dict(sorted(self._refused.items())),
                "spent": {work: round(self._spent[work], 6) for work in WORKS},
                "seconds": round(self._clock() - self._began, 3),
            }
