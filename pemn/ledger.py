"""What every message of a run cost, by round, slot and direction.

Three figures, in bytes: `payload`, the encoded messages of `pemn.wire`; `framed`, with the link's envelope and
gRPC's length prefix; `wire`, what the kernel sent and received on the client's connections, TLS and HTTP/2
included, or null where nobody can say.

Source: docs/wire.md, "The ledger".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["up", "down"]
DIRECTIONS: tuple[Direction, Direction] = ("up", "down")

Column: TypeAlias = Literal["payload", "framed", "wire"]

Wire: TypeAlias = Mapping[int, tuple[int, int]]
"""Bytes so far on the connections of each slot: (up, down)."""


@dataclass
class Entry:
    """A line of the ledger: one slot and direction in one round."""

    round: int
    slot: int
    direction: Direction
    messages: int = 0
    payload: int = 0
    payload_by_kind: dict[str, int] = field(default_factory=dict)
    framed: int = 0
    wire: int | None = None


class Ledger:
    """Collects what is sent and received, and closes it round by round.

    Of the rounds that are closed it knows the sums alone: a run may be long.
    """

    def __init__(self) -> None:
        self.num_entries = 0
        self._totals: Counter[tuple[Direction, Column]] = Counter()
        self._by_kind: Counter[str] = Counter()
        self._open: dict[tuple[int, Direction], Entry] = {}
        self._before: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))

    def go_on(self, entries: Iterable[Entry], wire: Wire) -> None:
        """Takes up the books of an earlier process, at the end of a round, before the first message.

        Args:
            entries: All that it has closed.
            wire: Bytes of each slot that are in these books already.
        """
        self._add(entries)
        self._before.update(wire)

    def note(
        self,
        slot: int,
        direction: Direction,
        payload: int,
        by_kind: Mapping[str, int],
        num_framed_bytes: int,
    ) -> None:
        """Adds a message to the round that is open.

        Args:
            slot: Whose message.
            direction: `up` from the client, `down` to it.
            payload: Length of the encoded content.
            by_kind: That of each message in it (`pemn.wire.messages.num_bytes_by_kind`).
            num_framed_bytes: Its length on the link, envelope included.
        """
        entry = self._entry(slot, direction)
        entry.messages += 1
        entry.payload += payload
        entry.framed += num_framed_bytes
        for kind, num_bytes in by_kind.items():
            entry.payload_by_kind[kind] = entry.payload_by_kind.get(kind, 0) + num_bytes

    def close_round(self, round_: int, wire: Wire | None) -> list[Entry]:
        """Ends a round.

        Args:
            round_: 0 for joining, then the rounds, then one more for the final broadcast.
            wire: Bytes so far of each slot; None where they cannot be known.

        Returns:
            The round's entries, two a slot.
        """
        for slot, now in (wire or {}).items():
            before = self._before[slot]
            self._before[slot] = now
            for direction, old, new in zip(DIRECTIONS, before, now, strict=True):
                self._entry(slot, direction).wire = new - old
        closed = [self._open[key] for key in sorted(self._open)]
        for entry in closed:
            entry.round = round_
        self._open = {}
        self._add(closed)
        return closed

    def _add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.num_entries += 1
            self._by_kind.update(entry.payload_by_kind)
            self._totals[entry.direction, "payload"] += entry.payload
            self._totals[entry.direction, "framed"] += entry.framed
            self._totals[entry.direction, "wire"] += entry.framed if entry.wire is None else entry.wire

    def total(self, direction: Direction, column: Column) -> int:
        """Returns the sum of a column over all closed rounds; unknown wire bytes count as framed ones."""
        return self._totals[direction, column]

    def total_of_kind(self, kind: str) -> int:
        """Returns the payload of all messages of a kind."""
        return self._by_kind[kind]

    def _entry(self, slot: int, direction: Direction) -> Entry:
        key = (slot, direction)
        if key not in self._open:
            self._open[key] = Entry(-1, slot, direction)
        return self._open[key]
