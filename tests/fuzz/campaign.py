"""Mutants by the thousand, and what must be true of each."""

from __future__ import annotations

import functools
import random
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

from pemn.codec import fast, rans
from tests.fuzz.ends import FileEnd, StoreEnd, Taken
from tests.fuzz.mutators import Mutant, mutate
from tests.fuzz.seals import claimed_params
from tests.fuzz.worlds import Frame, digest

WEIGHTS = {
    "one": 10,
    "tiny": 30,
    "small": 40,
    "twin": 20,
    "deep": 40,
    "normal": 20,
    "tied": 30,
    "large": 1,
    "vast": 1,
}
"""How often a world's frames are mutated; a frame of the large one takes as long as a hundred others."""

_SPARE_BYTES = 1 << 20  # on top of n / 8 and of what a valid frame takes
# What opening a file takes for each weight that it says it has, most of it for the weights themselves.
_BYTES_A_WEIGHT, _S_A_WEIGHT = 16, 2e-6
# Of a frame that is longer than any valid one: protobuf's, the canonical form, the field, its words.
_COPIES = 6
_CLOCK_S = 0.5  # on top of what a valid frame takes: other programs on the machine, collection of garbage
_TIMES = 5


@dataclass(frozen=True)
class Bound:
    """What refusing or taking a frame of a network may cost.

    Attributes:
        cpu_s: Seconds of this thread.
        num_bytes: Peak of what Python and numpy allocate meanwhile.
    """

    cpu_s: float
    num_bytes: int


@dataclass
class Report:
    """What came of a campaign.

    Attributes:
        fates: For plain and resealed mutants, by kind and fate: `accepted`, or the name of the error.
        accepted: Resealed mutants that were accepted, by kind of frame and of mutation.
        failures: What must not be, with all that is needed to see it again.
        cpu_ms: For plain and resealed mutants, how long each took.
        peak_bytes: For each world, the highest peak of a mutant.
    """

    fates: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: {name: defaultdict(Counter) for name in ("plain", "resealed")}
    )
    accepted: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=lambda: {"plain": [], "resealed": []})
    peak_bytes: Counter[str] = field(default_factory=Counter)

    @property
    def num_mutants(self) -> int:
        return sum(sum(fates.values()) for kinds in self.fates.values() for fates in kinds.values())

    def count(self, form: str, fate: str) -> int:
        """Returns how many plain or resealed mutants had this fate."""
        return sum(fates[fate] for fates in self.fates[form].values())


class Campaign:
    """Delivers mutants of some frames and judges what happens.

    Args:
        frames: Valid ones.
        seed: Decides every mutant: number `i` of a campaign is always the same.
    """

    def __init__(self, frames: Sequence[Frame], seed: int) -> None:
        self.frames, self.report = frames, Report()
        self.seed = seed
        self._by_world: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            self._by_world[frame.world].append(frame)
        self.bounds: dict[str, Bound] = {}
        for name, of_group in _groups(frames).items():
            self.bounds[name] = _bound_of(of_group)
        self._meanings: dict[tuple[int, bytes], bytes] = {}

    def mutant(self, number: int) -> tuple[Frame, Mutant]:
        """Returns one mutant, and the frame that it was made from. The odd ones are resealed."""
        draw = random.Random(f"{self.seed}/{number}")
        resealed = number % 2 == 1
        (world,) = draw.choices(list(self._by_world), [WEIGHTS[world] for world in self._by_world])
        # A stored spec has no seal, so any change of it is a resealed one.
        frames = [f for f in self._by_world[world] if resealed or not isinstance(f.end, StoreEnd)]
        kind = draw.choice(sorted({frame.kind for frame in frames}))
        frame = draw.choice([frame for frame in frames if frame.kind == kind])
        return frame, mutate(frame, self.frames, draw, resealed)

    def deliver(self, number: int) -> None:
        """Makes a mutant, delivers it and notes what was wrong."""
        frame, mutant = self.mutant(number)
        form = "resealed" if mutant.resealed else "plain"

        def fail(what: str) -> None:
            name = f"{form} {mutant.kind} of the {frame.kind} of {frame.world!r}"
            self.report.failures.append(f"mutant {number} of seed {self.seed}, {name}: {what}")

        traced = number % 8 < 2  # a plain and a resealed one of every eight
        fate, taken, cost = watch(frame, mutant.data, traced)
        self.report.fates[form][mutant.kind][fate] += 1
        group, claimed = _group(frame), claimed_params(frame, mutant.data)
        bound = self.bounds[group]
        if traced:
            most = bound.num_bytes + _COPIES * len(mutant.data) + _BYTES_A_WEIGHT * claimed
            self.report.peak_bytes[group] = max(self.report.peak_bytes[group], cost.num_bytes)
            if cost.num_bytes > most:
                fail(f"allocated {cost.num_bytes} bytes, of at most {most}")
        else:
            self.report.cpu_ms[form].append(round(1000 * cost.cpu_s, 3))
            longest = bound.cpu_s + _S_A_WEIGHT * claimed
            if cost.cpu_s > longest:
                fail(f"took {cost.cpu_s:.3f} s, of at most {longest:.3f}")
        if taken is None:
            if fate.startswith("!"):
                fail(fate)
        elif not mutant.resealed:
            fail("was accepted")
        elif taken.canonical() != mutant.data:
            fail("was accepted in a form that is not canonical")
        else:
            self.report.accepted[frame.kind, mutant.kind] += 1
            key = id(frame.end), taken.meaning()
            if self._meanings.setdefault(key, digest(mutant.data)) != digest(mutant.data):
                fail("means the same as another")


def watch(frame: Frame, data: bytes, traced: bool) -> tuple[str, Taken | None, Bound]:
    """Delivers bytes.

    Args:
        frame: To whose end.
        data: The bytes.
        traced: Whether allocations are counted, which takes several times as long.

    Returns:
        `accepted` or the name of the error, with a `!` before it if it is none that may be; what was taken; what it
        cost.
    """
    if traced:
        tracemalloc.start()
    taken, start = None, time.thread_time()
    try:
        taken = frame.end.take(data)
        fate = "accepted"
    except frame.end.refusal as error:
        fate = type(error).__name__
    except Exception as error:  # whatever it is, it is what this suite looks for
        fate = f"!{error!r:.300}"
    cpu_s, peak = time.thread_time() - start, 0
    if traced:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return fate, taken, Bound(cpu_s, peak)


def _group(frame: Frame) -> str:
    """Frames of a group cost about the same: a file holds a graph besides."""
    return f"{frame.world}, files" if isinstance(frame.end, FileEnd) else frame.world


def _groups(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[_group(frame)].append(frame)
    return groups


def _bound_of(frames: Sequence[Frame]) -> Bound:
    """Returns what valid frames cost, and some more: work and memory are proportional to n."""
    cpu_s, num_bytes = 0.0, 0
    for frame in frames:
        for traced in (False, True):
            fate, _, cost = watch(frame, frame.data, traced)
            assert fate == "accepted", (frame.world, frame.kind, fate)
            cpu_s = max(cpu_s, cost.cpu_s * (not traced))
            num_bytes = max(num_bytes, cost.num_bytes)
    num_params = max(frame.end.num_params for frame in frames)
    return Bound(_TIMES * cpu_s + _CLOCK_S, num_bytes + num_params // 8 + _SPARE_BYTES)


IMPLEMENTATIONS = ("chosen", "without-numba", "integers", "lanes", "numba")


@contextmanager
def coded_by(name: str) -> Iterator[None]:
    """One implementation does all the coding, or those that there are share it as sizes have it.

    Args:
        name: `integers`, `lanes` or `numba`; or `chosen` and `without-numba`, which share it.
    """
    if name == "chosen":
        yield
        return
    load = fast._load if name == "numba" else functools.cache(lambda: None)
    if name == "numba" and load() is None:
        raise RuntimeError("numba is not installed")
    few = {"integers": 1 << 20, "lanes": 0}.get(name, rans._FEW_LANES)
    with (
        mock.patch.object(fast, "_load", load),
        mock.patch.object(fast, "PATIENCE", -1),
        mock.patch.object(rans, "_FEW_LANES", few),
    ):
        yield
