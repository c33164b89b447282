"""What a run has come to."""

from __future__ import annotations

from dataclasses import dataclass, field

from pemn.methods import ServerState


@dataclass
class Outcome:
    """What a run has come to.

    Attributes:
        state: After the last round.
        accuracies: On the test split, one a round.
        num_votes: One a round.
        abandoned_rounds: How often clients had to be asked again for want of votes.
        images: How many images each slot has trained on in a round.
        seconds: From the first round to the last.
    """

    state: ServerState
    accuracies: list[float] = field(default_factory=list)
    num_votes: list[int] = field(default_factory=list)
    abandoned_rounds: int = 0
    images: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
