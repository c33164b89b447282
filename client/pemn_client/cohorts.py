"""Clients in one process that train some at a time, as one batch; each still asks a trainer of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemn.methods import Trainer
from pemn.training.cohort import check_cohort, train_cohort
from pemn.training.local import LocalTrainer
from pemn.wire.messages import Metrics
from pemn.wire.spec import Spec


class Cohorts:
    """Makes trainers: when the first of those that are expected is asked, the next few train with it.

    What the others have come to waits until they are asked. Used by one thread.

    Args:
        make_trainer: Makes the trainer of a slot by itself.
        size: How many train at once; 1: each by itself.
    """

    def __init__(self, make_trainer: Callable[[Spec, int], LocalTrainer], size: int) -> None:
        self._make_trainer, self._size = make_trainer, size
        self._spec: Spec | None = None
        self._trainers: dict[int, LocalTrainer] = {}
        self._expected: list[int] = []
        self._done: dict[int, tuple[NDArray[Any], Metrics]] = {}
        self._done_from: tuple[int, NDArray[Any]] | None = None

    def __call__(self, spec: Spec, slot: int) -> Trainer:
        """Returns the trainer of a slot.

        Raises:
            ConfigError: If the clients of this run cannot train at once.
            PemnError: What else `make_trainer` raises.
        """
        if self._size == 1:
            return self._make_trainer(spec, slot)
        if spec != self._spec:
            self._spec, self._trainers, self._done, self._done_from = spec, {}, {}, None
            check_cohort(self._trainer(spec, slot))
        self._trainer(spec, slot)
        return _Member(self, spec, slot)

    def expect(self, slots: list[int]) -> None:
        """Says which slots are about to train, in the order in which they will be asked."""
        self._expected = slots

    def train(self, spec: Spec, slot: int, start: NDArray[Any], round_: int) -> tuple[NDArray[Any], Metrics]:
        """Returns what a slot's own trainer would have, but for the rounding of floats; see `Trainer.train`."""
        if self._done_from is None or self._done_from[0] != round_:
            self._done = {}
        elif not np.array_equal(self._done_from[1], start):
            return self._trainer(spec, slot).train(start, round_)
        if slot not in self._done:
            # Of what is done and not fetched nothing is kept: no more than one cohort's results at a time.
            at = self._expected.index(slot) if slot in self._expected else len(self._expected)
            cohort = [slot, *self._expected[at + 1 : at + self._size]]
            results = train_cohort([self._trainer(spec, member) for member in cohort], start, round_)
            self._done, self._done_from = dict(zip(cohort, results, strict=True)), (round_, start.copy())
        return self._done.pop(slot)

    def _trainer(self, spec: Spec, slot: int) -> LocalTrainer:
        if slot not in self._trainers:
            self._trainers[slot] = self._make_trainer(spec, slot)
        return self._trainers[slot]


@dataclass(frozen=True)
class _Member:
    """A client's trainer."""

    cohorts: Cohorts
    spec: Spec
    slot: int

    def train(self, start: NDArray[Any], round_: int) -> tuple[NDArray[Any], Metrics]:
        """See `pemn.methods.Trainer`."""
        return self.cohorts.train(self.spec, self.slot, start, round_)
