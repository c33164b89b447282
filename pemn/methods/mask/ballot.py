"""The votes of one round, added up as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pemn.errors import WrongRound
from pemn.federation.flips import Flips
from pemn.federation.tally import Tally
from pemn.wire.messages import Metrics


@dataclass(frozen=True)
class Vote:
    """A checked update.

    Attributes:
        flips: What it adds to the tally; its draw says who votes, and for which round.
        metrics: What the client said of its work.
    """

    flips: Flips
    metrics: Metrics

    @property
    def round(self) -> int:
        """Which round it was trained for."""
        return self.flips.draw.round


class Ballot:
    """Takes one vote a slot; holds sums and up to seven votes, so its size hardly grows with their number.

    In which order the slots' votes come changes nothing. Of two votes of one slot, a late one and the next, the first
    counts: so no client moves a weight by more than its share, and a client answers its tasks in turn.

    Args:
        num_params: n.
    """

    def __init__(self, num_params: int) -> None:
        self.tally = Tally(num_params)
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

    def add(self, vote: Vote) -> None:
        """Counts a vote.

        Raises:
            WrongRound: If the slot has voted already.
        """
        slot = vote.flips.draw.slot
        if slot in self._rounds:
            raise WrongRound("second vote of a slot", got=vote.round, where=f"slot {slot}")
        self.tally.add(vote.flips)
        self._rounds[slot] = vote.round
        self._metrics[slot] = vote.metrics
