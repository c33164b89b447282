"""The fuzz of every run of the tests; `python -m tests.fuzz` is the long form."""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest

from pemn.codec import Reader
from pemn.methods import Server
from pemn.wire import checks, messages
from pemn.wire.v1 import messages_pb2 as pb
from tests.fuzz.campaign import Campaign, coded_by
from tests.fuzz.mutators import KINDS
from tests.fuzz.worlds import Frame, frames

WORLDS = "one", "tiny", "small", "twin", "deep", "normal"
NUM_MUTANTS = {"integers": 1600, "lanes": 300, "numba": 300}
SLOW = "lanes"  # with the few lanes that small networks have
_NUMBA = importlib.util.find_spec("numba") is not None


@pytest.fixture(scope="module")
def valid() -> Sequence[Frame]:
    return frames(*WORLDS)


def run(valid: Sequence[Frame], count: int, seed: int = 1) -> Campaign:
    made = Campaign(valid, seed)
    for number in range(count):
        made.deliver(number)
    return made


@pytest.mark.parametrize(
    "implementation",
    ["integers", "lanes", pytest.param("numba", marks=pytest.mark.skipif(not _NUMBA, reason="needs numba"))],
)
def test_no_mutant_does_harm(valid: Sequence[Frame], implementation: str) -> None:
    count = NUM_MUTANTS[implementation]
    with coded_by(implementation):
        few = [frame for frame in valid if implementation != SLOW or frame.world != "deep"]
        report = run(few, count, seed=list(NUM_MUTANTS).index(implementation)).report
    assert report.failures == []
    assert report.num_mutants == count
    assert report.count("plain", "accepted") == 0
    # The suite is worth something only if the other half gets past the seals.
    assert report.count("resealed", "accepted") > count / 50
    if count > 1000:
        # Of every kind of frame some other is right too, but of an acknowledgement: all in it is known.
        assert {kind for kind, _ in report.accepted} == {frame.kind for frame in valid} - {"ack"}
        assert set(report.fates["plain"]) == set(report.fates["resealed"]) == set(KINDS)


def test_a_plain_mutant_costs_a_hash(valid: Sequence[Frame]) -> None:
    """5 ms is what a frame of a million weights may take; these are of 5,000 at most. The slowest are the machine's."""
    report = run(valid, 400, seed=4).report
    assert float(np.percentile(report.cpu_ms["plain"], 95)) < 5


def test_every_mutant_can_be_made_again(valid: Sequence[Frame]) -> None:
    few = [frame for frame in valid if frame.world in ("one", "tiny")]
    one, again = Campaign(few, 5), Campaign(frames("one", "tiny"), 5)
    for number in range(100):
        assert one.mutant(number)[1] == again.mutant(number)[1]
    assert one.mutant(0)[1] != Campaign(few, 6).mutant(0)[1]


# What the suite is there to find, put in on purpose.


def _no_seal(data: bytes) -> object:
    proto = pb.Content()
    checks.parse(proto, data)
    return proto


def _slowly(take: Callable[..., object]) -> Callable[..., object]:
    def late(*arguments: object) -> object:
        stop = time.thread_time() + 1.5
        while time.thread_time() < stop:
            pass
        return take(*arguments)

    return late


def _greedily(read: Callable[..., object]) -> Callable[..., object]:
    def much(*arguments: object) -> object:
        np.zeros(1 << 24, np.uint8)
        return read(*arguments)

    return much


_BREAKS: dict[str, tuple[Any, str, Any, str]] = {
    "no canonical form": (Reader, "finish", lambda self: None, "not canonical"),
    "no seal": (messages, "_parse", _no_seal, "plain .* was accepted$"),
    "another error": (Server, "read_vote", mock.Mock(side_effect=KeyError(7)), r"!KeyError\(7\)"),
    "much time": (Server, "read_vote", _slowly(Server.read_vote), "took"),
    "much memory": (Server, "read_vote", _greedily(Server.read_vote), "allocated"),
}


@pytest.mark.parametrize("broken", _BREAKS)
def test_the_campaign_finds_what_is_broken(valid: Sequence[Frame], broken: str) -> None:
    owner, name, instead, told = _BREAKS[broken]
    with coded_by("integers"):
        made = Campaign([frame for frame in valid if frame.world in ("tiny", "small")], 2)
        with mock.patch.object(owner, name, instead):
            for number in range(1000):
                made.deliver(number)
                if any(re.search(told, failure) for failure in made.report.failures):
                    return
    pytest.fail(f"nothing like {told!r} in {made.report.failures}")
