"""What a client checks before it takes part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pemn.data.datasets import input_contract, load
from pemn.data.partition import Partition, shards
from pemn.errors import ConfigError, DataError, WrongSpec
from pemn.federation.levels import Levels
from pemn.prototype import Strategy
from pemn.training.models import model_spec
from pemn.wire.spec import Spec
from pemn_client.trainer import TrainerFactory
from tests.networks import run_spec


def spec_of(architecture: str = "mlp-16", partition: str = "iid") -> Spec:
    contract = input_contract("digits", load("digits", None, "test"))
    spec = run_spec(model_spec(architecture, contract, 5, Strategy.parse("rp:1e-1")))
    return replace(spec, data=replace(spec.data, partition=partition))


def test_each_slot_trains_on_its_own_share() -> None:
    spec = spec_of(partition="classes:2")
    labels = load("digits", None, "train").labels
    sizes = [len(share) for share in shards(Partition.parse("classes:2"), labels, 3, spec.model.seed)]
    q = Levels.of(spec).at(np.zeros(spec.model.num_params, np.int8))
    trained = [TrainerFactory(device="cpu")(spec, slot).train(q, 1) for slot in range(3)]
    assert [metrics.num_images for _, metrics in trained] == sizes
    assert not np.array_equal(trained[0][0], trained[1][0])


def test_own_data_are_not_divided() -> None:
    spec = spec_of(partition="own")
    q = Levels.of(spec).at(np.zeros(spec.model.num_params, np.int8))
    for slot in range(3):
        _, metrics = TrainerFactory(device="cpu")(spec, slot).train(q, 1)
        assert metrics.num_images == len(load("digits", None, "train").labels)


@pytest.mark.parametrize(
    ("factory", "what"),
    [
        (TrainerFactory(dataset="cifar10"), "data set: got cifar10; wanted digits"),
        (TrainerFactory(num_slots=4), "shares: got 4; wanted 3"),
    ],
)
def test_a_client_that_was_told_something_else(factory: TrainerFactory, what: str) -> None:
    with pytest.raises(WrongSpec, match=what):
        factory(spec_of(), 0)


def test_other_classes_than_the_run() -> None:
    spec = spec_of()
    contract = replace(spec.model.input, class_names=(*spec.model.input.class_names[:9], "ten"))
    with pytest.raises(WrongSpec, match="images and classes of the data set"):
        TrainerFactory()(replace(spec, model=replace(spec.model, input=contract)), 0)


def test_a_network_that_this_machine_builds_otherwise_names_the_layer() -> None:
    spec = spec_of()
    first, *rest = spec.model.layers
    other = replace(spec.model, layers=(replace(first, shape=(17, 64)), *rest))
    with pytest.raises(WrongSpec, match=first.name.replace(".", r"\.")):
        TrainerFactory()(replace(spec, model=other), 0)


def test_a_run_on_what_nobody_knows() -> None:
    spec = spec_of()
    for data in (replace(spec.data, dataset="unheard-of"), replace(spec.data, partition="unheard-of")):
        with pytest.raises(ConfigError, match="unheard-of"):
            TrainerFactory()(replace(spec, data=data), 0)


def test_data_that_are_not_there(tmp_path: Path) -> None:
    spec = spec_of()
    with pytest.raises(DataError, match="nowhere"):
        TrainerFactory(data_dir=tmp_path / "nowhere")(
            replace(spec, data=replace(spec.data, dataset="cifar10")), 0
        )
