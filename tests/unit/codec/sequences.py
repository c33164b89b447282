"""Sequences of decisions to code in tests, and the ways of coding them that have to agree."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.codec import Decisions, Reader, blocks, encode, fast, rans


@dataclass(frozen=True)
class Sequence:
    """Decisions about weights: one each, then, if there are further rows, one about those whose last was a 1.

    Attributes:
        decisions: bool [rows, n].
        contexts: uint16 [rows, n].
        shape: Of the contexts.
        restarts: Where blocks begin anew.
    """

    decisions: NDArray[np.bool_]
    contexts: NDArray[np.uint16]
    shape: tuple[int, ...] = ()
    restarts: tuple[int, ...] = ()

    @property
    def num_weights(self) -> int:
        return len(self.decisions[0])

    def decide(self, start: int, stop: int) -> list[Decisions]:
        """The decisions of a block, a part for each row."""
        asked, out = np.arange(start, stop), []
        for decisions, contexts in zip(self.decisions, self.contexts, strict=True):
            out.append((decisions[asked], contexts[asked]))
            asked = asked[decisions[asked]]
        return out

    def encode(self) -> bytes:
        return encode(self.num_weights, self.decide, self.shape, self.restarts)

    def decode(self, data: bytes) -> Sequence:
        """Reads a code with these contexts: what it says instead of these decisions (0 where nothing was asked)."""
        reader, out = Reader(data, self.shape), np.zeros_like(self.decisions)
        for start, stop in blocks(self.num_weights, self.restarts):
            asked = np.arange(start, stop)
            for decisions, contexts in zip(out, self.contexts, strict=True):
                decisions[asked] = reader.read(contexts[asked])
                asked = asked[decisions[asked]]
            reader.end_block()
        reader.finish()
        return dataclasses.replace(self, decisions=out)

    def same(self, other: Sequence) -> bool:
        return np.array_equal(self.decisions, other.decisions)


def draw(
    seed: int, num_weights: int, share: float, shape: tuple[int, ...] = (), rows: int = 1, restarts: int = 0
) -> Sequence:
    """A sequence with this share of ones; with contexts, more in some of them and fewer in others."""
    random = np.random.default_rng(seed)
    count = math.prod(shape)
    contexts = random.integers(0, count, (rows, num_weights)).astype(np.uint16)
    shares = np.full(count, share) if count == 1 or share == 1 else share * random.uniform(0.2, 1.8, count)
    decisions = random.random((rows, num_weights)) < shares[contexts]
    begin_anew = tuple(sorted(random.integers(0, num_weights + 1, restarts).tolist()))
    return Sequence(np.logical_and.accumulate(decisions), contexts, shape, begin_anew)


def sequences(most: int) -> st.SearchStrategy[Sequence]:
    """Sequences of up to so many weights that use each of the coders."""
    return st.builds(
        draw,
        st.integers(0, 1 << 30),
        st.one_of(st.integers(0, min(most, 200)), st.integers(0, most)),
        st.sampled_from([0, 0.001, 0.02, 0.2, 0.5, 0.9, 1]),
        st.sampled_from([(), (1,), (3,), (64,), (2, 3, 5), (32, 16, 8)]),
        st.integers(1, 3),
        st.integers(0, 2),
    )


HAS_NUMBA = importlib.util.find_spec("numba") is not None
IMPLEMENTATIONS = ("integers", "lanes", "numba") if HAS_NUMBA else ("integers", "lanes")


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """All decisions are coded with one of the three implementations of rANS, which otherwise share the work."""
    load: Callable[[], ModuleType | None] = functools.cache(lambda: None)
    if name == "numba":
        load = fast._load
    few = 1 << 20 if name == "integers" else 0
    with (
        mock.patch.object(fast, "_load", load),
        mock.patch.object(fast, "PATIENCE", -1),
        mock.patch.object(rans, "_FEW_LANES", few),
    ):
        yield
