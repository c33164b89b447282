"""The votes of one round."""

from __future__ import annotations

import numpy as np
import pytest

from pemn.errors import WrongRound
from pemn.federation.flips import Draw, Flips
from pemn.federation.levels import ONE, Levels
from pemn.methods.ballot import Ballot, Vote
from pemn.methods.mask import FlipTally
from pemn.schedule import Schedule
from pemn.wire.messages import Metrics
from pemn.wire.protocols import MaskProtocol

N = 20


def vote_of(slot: int, round_: int = 4) -> Vote:
    """A vote for or against the weight that has the slot's number."""
    flips = Flips(draw(slot, round_), np.packbits(np.arange(N) == slot, bitorder="little"))
    return Vote(slot, round_, flips, Metrics(10 + slot, 20 + slot, 30 + slot))


def draw(slot: int, round_: int) -> Draw:
    return Draw(
        Levels(MaskProtocol(1, Schedule.always(1), 1, ()), 0, (N,)), np.zeros(N, np.int8), round_, slot
    )


@pytest.mark.parametrize("slots", [[], [0], [7], [2, 0, 5], [9, 8, 1, 4]])
def test_what_each_slot_said_is_kept_under_its_slot(slots: list[int]) -> None:
    votes = FlipTally(N)
    ballot = Ballot(votes)
    for slot in slots:
        ballot.add(vote_of(slot, 4 - slot % 2))
    assert len(ballot) == votes.flips.num_votes == len(slots)
    assert dict(ballot.rounds) == {slot: 4 - slot % 2 for slot in slots}
    assert dict(ballot.metrics) == {slot: Metrics(10 + slot, 20 + slot, 30 + slot) for slot in slots}
    wanted = [0] * N
    for slot in slots:
        wanted[slot] = 1 if draw(slot, 4 - slot % 2).u(slot, slot + 1) >= ONE // 2 else -1
    assert votes.flips.sums(0, N).tolist() == wanted


def test_a_second_vote_of_a_slot_changes_nothing() -> None:
    votes = FlipTally(N)
    ballot = Ballot(votes)
    ballot.add(vote_of(3, 4))
    with pytest.raises(WrongRound, match="second vote of a slot: got 5"):
        ballot.add(vote_of(3, 5))
    assert len(ballot) == votes.flips.num_votes == 1
    assert dict(ballot.rounds) == {3: 4}
    assert dict(ballot.metrics) == {3: Metrics(13, 23, 33)}
