"""The votes of one round, added up as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pemn.errors import WrongRound
from pemn.methods.mask import FlipTally
from pemn.methods.method import Tally
from pemn.wire.messages import Metrics


@dataclass(frozen=True)
class Vote:
    """A checked update.

    Attributes:
        slot: Who votes.
        round: Which round it was trained for.
        content: What it says, as the method has understood it.
        metrics: What the client said of its work.
    """

    slot: int
    round: int
    content: Any
    metrics: Metrics


class Ballot:
    """Takes one vote a slot.

    In which order the slots' votes come changes nothing. Of two votes of one slot, a late one and the next, the first
    counts: so no client moves a weight by more than its share, and a client answers its tasks in turn.

    Args:
        tally: Empty; the method's own.
    """

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._rounds: dict[int, int] = {}
        self._metrics: dict[int, Metrics] = {}

    def __len__(self) -> int:
        """Returns the number of votes."""
        return len(self._rounds)

    @property
    def rounds(self) -> Mapping[int, int]:
        """For each slot that has voted, the round that its vote was trained for."""
        return MappingProxyType(self._rounds)

    @property
    def metrics(self) -> Mapping[int, Metrics]:
        """For each slot that has voted, what it said of its work."""
        return MappingProxyType(self._metrics)

    def left_out(self) -> list[int]:
        """Returns the slots whose votes a defence leaves out, ascending; asked for when all votes are there."""
        return self.tally.left_out() if isinstance(self.tally, FlipTally) else []

    def add(self, vote: Vote) -> None:
        """Counts a vote.

        Raises:
            WrongRound: If the slot has voted already.
        """
        if vote.slot in self._rounds:
            raise WrongRound("second vote of a slot", got=vote.round, where=f"slot {vote.slot}")
        self.tally.add(vote.slot, vote.content, vote.metrics)
        self._rounds[vote.slot] = vote.round
        self._metrics[vote.slot] = vote.metrics
