"""Clients in one process whose local training other processes do, a few of them ahead of who asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemn.methods import Trainer
from pemn.processes import processes
from pemn.training.device import set_threads
from pemn.wire.messages import Metrics
from pemn.wire.spec import Spec

_AHEAD = 2
"""Clients a worker that are begun and not fetched: one that trains, and one for when it is done."""

MakeTrainer = Callable[[Spec, int], Trainer]
Result = tuple[NDArray[Any], Metrics]


class Workers:
    """Makes trainers: when one of those that are expected is asked, the next few are begun as well.

    A result depends on the spec, the slot, the start and the round alone, so it matters neither how many workers there
    are nor which of them trains whom. Used by one thread; see `workers`.

    Args:
        pool: Processes that have torch's number of threads set.
        size: How many there are.
        make_trainer: Makes the trainer of a slot; can be pickled.
    """

    def __init__(self, pool: Executor, size: int, make_trainer: MakeTrainer) -> None:
        self._pool, self._window, self._make_trainer = pool, _AHEAD * size, make_trainer
        self._spec: Spec | None = None
        self._expected: list[int] = []
        self._begun: dict[int, Future[Result]] = {}
        self._begun_from: tuple[int, NDArray[Any]] | None = None

    def __call__(self, spec: Spec, slot: int) -> Trainer:
        """Returns the trainer of a slot.

        Raises:
            PemnError: What `make_trainer` raises; it is asked here once a run, so that it can refuse before the first
                round.
        """
        if spec != self._spec:
            self._make_trainer(spec, slot)
            self._spec, self._begun, self._begun_from = spec, {}, None
        return _Remote(self, spec, slot)

    def expect(self, slots: list[int]) -> None:
        """Says which slots are about to train, in the order in which they will be asked."""
        self._expected = slots

    def train(self, spec: Spec, slot: int, start: NDArray[Any], round_: int) -> Result:
        """Returns what a slot's own trainer would; see `Trainer.train`.

        Raises:
            ConfigError: If a worker was killed.
        """
        if self._begun_from is None or self._begun_from[0] != round_:
            for future in self._begun.values():
                future.cancel()
            self._begun, self._begun_from = {}, (round_, start.copy())
        elif not np.array_equal(self._begun_from[1], start):
            return self._begin(spec, slot, start, round_).result()
        at = self._expected.index(slot) if slot in self._expected else len(self._expected)
        for member in (slot, *self._expected[at + 1 : at + self._window]):
            if member not in self._begun:
                self._begun[member] = self._begin(spec, member, start, round_)
        return self._begun.pop(slot).result()

    def _begin(self, spec: Spec, slot: int, start: NDArray[Any], round_: int) -> Future[Result]:
        return self._pool.submit(_train, self._make_trainer, spec, slot, start, round_)


@contextmanager
def workers(make_trainer: MakeTrainer, size: int, num_threads: int | None) -> Iterator[Workers]:
    """Starts workers, and ends them.

    Args:
        make_trainer: See `Workers`.
        size: How many.
        num_threads: Of torch, in each; None: the cores, divided among them.
    """
    begin = partial(set_threads, num_threads, num_processes=size)
    with processes(size, begin, "a worker was killed", "fewer --workers, if memory is short") as pool:
        yield Workers(pool, size, make_trainer)


@dataclass(frozen=True)
class _Remote:
    """A client's trainer."""

    workers: Workers
    spec: Spec
    slot: int

    def train(self, start: NDArray[Any], round_: int) -> Result:
        """See `pemn.methods.Trainer`."""
        return self.workers.train(self.spec, self.slot, start, round_)


def _train(make_trainer: MakeTrainer, spec: Spec, slot: int, start: NDArray[Any], round_: int) -> Result:
    # Made anew each time: a worker that kept them all would have a copy of all the data.
    return make_trainer(spec, slot).train(start, round_)
