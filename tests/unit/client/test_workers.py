"""Clients in one process that other processes train for: who is begun when, and what each is handed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pemn.errors import ConfigError
from pemn.prototype import Strategy
from pemn.training.models import model_spec
from pemn.wire.messages import Metrics
from pemn.wire.spec import Spec
from pemn_client.trainer import TrainerFactory
from pemn_client.workers import Workers, workers
from tests.networks import DIGITS, run_spec

NUM_SLOTS = 9
FACTORY = TrainerFactory(device="cpu", clock=lambda: 0.0)


class Here(Executor):
    """Does at once what it is given, and notes for whom."""

    def __init__(self) -> None:
        self.slots: list[int] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.slots.append(args[2])
        future: Future[Any] = Future()
        future.set_result(work(*args, **kwargs))
        return future


@pytest.fixture
def spec() -> Spec:
    return run_spec(model_spec("mlp-8", DIGITS, 5, Strategy.parse("rp:1e-1")), num_slots=NUM_SLOTS)


def start(spec: Spec, value: int = 40_000) -> NDArray[np.uint16]:
    return np.full(spec.model.num_params, value, np.uint16)


def test_each_is_handed_its_own(spec: Spec) -> None:
    pool = Here()
    makers = Workers(pool, 2, FACTORY)
    trainers = [makers(spec, slot) for slot in range(NUM_SLOTS)]
    order = [3, 1, 8, 0, 5, 7]
    for round_ in (1, 2):
        makers.expect(order)
        for slot in order:
            got, metrics = trainers[slot].train(start(spec), round_)
            wanted, wanted_metrics = FACTORY(spec, slot).train(start(spec), round_)
            assert np.array_equal(got, wanted)
            assert metrics == wanted_metrics
    assert pool.slots == order * 2  # each once


def test_a_few_are_begun_ahead(spec: Spec) -> None:
    """No more: what is done and not fetched takes memory."""
    pool = Here()
    makers = Workers(pool, 2, FACTORY)
    makers.expect(list(range(NUM_SLOTS)))
    makers(spec, 0).train(start(spec), 1)
    assert pool.slots == [0, 1, 2, 3]
    makers(spec, 1).train(start(spec), 1)
    assert pool.slots == [0, 1, 2, 3, 4]


def test_who_starts_from_elsewhere_trains_by_itself(spec: Spec) -> None:
    pool = Here()
    makers = Workers(pool, 2, FACTORY)
    makers.expect([0, 1, 2])
    makers(spec, 0).train(start(spec), 1)
    got, _ = makers(spec, 1).train(start(spec, 20_000), 1)
    assert np.array_equal(got, FACTORY(spec, 1).train(start(spec, 20_000), 1)[0])
    makers(spec, 2).train(start(spec), 1)
    assert pool.slots == [0, 1, 2, 1]  # what the third came to was still there


def test_another_round_is_trained_anew(spec: Spec) -> None:
    """The same start a round later, as where nobody has voted: other draws, another result."""
    makers = Workers(Here(), 2, FACTORY)
    makers.expect([0, 1])
    makers(spec, 0).train(start(spec), 1)
    makers.expect([1])
    got, _ = makers(spec, 1).train(start(spec), 2)
    assert np.array_equal(got, FACTORY(spec, 1).train(start(spec), 2)[0])


def test_who_asks_again_or_unexpectedly_is_trained(spec: Spec) -> None:
    pool = Here()
    makers = Workers(pool, 1, FACTORY)
    makers.expect([0, 1])
    once, _ = makers(spec, 0).train(start(spec), 1)
    again, _ = makers(spec, 0).train(start(spec), 1)
    makers(spec, 7).train(start(spec), 1)
    assert np.array_equal(once, again)
    assert pool.slots == [0, 1, 0, 7]


@dataclass(frozen=True)
class Doomed:
    """A client on whose training the system kills its process."""

    def __call__(self, spec: Spec, slot: int) -> Doomed:
        return self

    def train(self, start: NDArray[Any], round_: int) -> tuple[NDArray[Any], Metrics]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_worker_is_said(spec: Spec) -> None:
    with (
        pytest.raises(ConfigError, match="a worker was killed: wanted fewer --workers, if memory is short"),
        workers(Doomed(), 1, 1) as makers,
    ):
        makers(spec, 0).train(start(spec), 1)
