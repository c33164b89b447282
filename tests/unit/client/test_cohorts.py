"""Clients in one process: who trains with whom, and what each is handed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pemn.prototype import Strategy
from pemn.training.local import LocalTrainer
from pemn.training.models import model_spec
from pemn.wire.messages import Metrics
from pemn.wire.spec import Spec
from pemn_client.cohorts import Cohorts
from pemn_client.trainer import TrainerFactory
from tests.networks import DIGITS, run_spec

NUM_SLOTS = 5


@pytest.fixture
def spec() -> Spec:
    return run_spec(model_spec("mlp-8", DIGITS, 5, Strategy.parse("rp:1e-1")), num_slots=NUM_SLOTS)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clients each call has trained at once."""
    sizes: list[int] = []

    def train(trainers: list[LocalTrainer], *args: Any) -> list[tuple[NDArray[Any], Metrics]]:
        sizes.append(len(trainers))
        return [trainer.train(*args) for trainer in trainers]

    monkeypatch.setattr("pemn_client.cohorts.train_cohort", train)
    return sizes


FACTORY = TrainerFactory(device="cpu", clock=lambda: 0.0)


def start(spec: Spec, value: int = 40_000) -> NDArray[np.uint16]:
    return np.full(spec.model.num_params, value, np.uint16)


def test_each_is_handed_its_own(spec: Spec, trained: list[int]) -> None:
    cohorts = Cohorts(FACTORY, 2)
    trainers = [cohorts(spec, slot) for slot in range(NUM_SLOTS)]
    for round_ in (1, 2):
        cohorts.expect(list(range(NUM_SLOTS)))
        for slot, trainer in enumerate(trainers):
            got, metrics = trainer.train(start(spec), round_)
            wanted, wanted_metrics = FACTORY(spec, slot).train(start(spec), round_)
            assert np.array_equal(got, wanted)
            assert metrics == wanted_metrics
    assert trained == [2, 2, 1] * 2


def test_one_at_a_time_is_the_trainer_itself(spec: Spec, trained: list[int]) -> None:
    cohorts = Cohorts(FACTORY, 1)
    cohorts.expect([0, 1])
    assert isinstance(cohorts(spec, 0), LocalTrainer)
    assert trained == []


def test_who_starts_from_elsewhere_trains_by_itself(spec: Spec, trained: list[int]) -> None:
    cohorts = Cohorts(FACTORY, NUM_SLOTS)
    first, second, third = (cohorts(spec, slot) for slot in range(3))
    cohorts.expect([0, 1, 2])
    first.train(start(spec), 1)
    got, _ = second.train(start(spec, 20_000), 1)
    assert np.array_equal(got, FACTORY(spec, 1).train(start(spec, 20_000), 1)[0])
    third.train(start(spec), 1)
    assert trained == [3]  # what the third came to was still there


def test_another_round_is_trained_anew(spec: Spec, trained: list[int]) -> None:
    """The same start a round later, as where nobody has voted: other draws, another result."""
    cohorts = Cohorts(FACTORY, 2)
    first, second = (cohorts(spec, slot) for slot in range(2))
    cohorts.expect([0, 1])
    first.train(start(spec), 1)
    cohorts.expect([1])
    got, _ = second.train(start(spec), 2)
    assert np.array_equal(got, FACTORY(spec, 1).train(start(spec), 2)[0])
    assert trained == [2, 1]


def test_who_asks_again_is_trained_again(spec: Spec, trained: list[int]) -> None:
    cohorts = Cohorts(FACTORY, 2)
    first = cohorts(spec, 0)
    cohorts.expect([0, 1])
    once, _ = first.train(start(spec), 1)
    cohorts.expect([0])
    again, _ = first.train(start(spec), 1)
    assert np.array_equal(once, again)
    assert trained == [2, 1]
