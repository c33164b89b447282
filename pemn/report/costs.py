"""Adds up the lines of a ledger: by round, by client, by kind of message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cost:
    """Bytes in one direction.

    Attributes:
        payload: Encoded messages.
        moved: What went over the network; where that is not known, the messages with their framing.
    """

    payload: int = 0
    moved: int = 0

    @property
    def overhead(self) -> int:
        """Bytes of framing and TLS; a connection's own bytes may be counted a round late, hence not below 0."""
        return max(0, self.moved - self.payload)


@dataclass
class Costs:
    """Bytes in both directions.

    Attributes:
        up: From the clients.
        down: To the clients.
        num_updates: Updates among the messages.
    """

    up: Cost = field(default_factory=Cost)
    down: Cost = field(default_factory=Cost)
    num_updates: int = 0

    @property
    def moved(self) -> int:
        """Bytes both ways."""
        return self.up.moved + self.down.moved


def sum_by(ledger: Iterable[Mapping[str, Any]], column: str) -> dict[int, Costs]:
    """Returns what each round or slot cost, in their order.

    Args:
        ledger: Lines of `ledger.jsonl`.
        column: `round` or `slot`.
    """
    found: dict[int, Costs] = defaultdict(Costs)
    for line in ledger:
        costs = found[line[column]]
        cost = costs.up if line["direction"] == "up" else costs.down
        cost.payload += line["payload"]
        cost.moved += line["framed"] if line["wire"] is None else line["wire"]
        costs.num_updates += "update" in line["payload_by_kind"]
    return dict(sorted(found.items()))


def sum_by_kind(ledger: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Returns the payload of each kind of message, in bytes."""
    found: dict[str, int] = defaultdict(int)
    for line in ledger:
        for kind, num_bytes in line["payload_by_kind"].items():
            found[kind] += num_bytes
    return dict(sorted(found.items()))
