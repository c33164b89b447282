"""What a client checks before it takes part."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pemn.data.datasets import input_contract, load
from pemn.data.partition import shards
from pemn.errors import DataError, MalformedFrame, RemoteError, WrongSpec
from pemn.federation.levels import Levels
from pemn.methods import Server
from pemn.partition import Partition
from pemn.prototype import Strategy
from pemn.training.models import model_spec
from pemn.wire.messages import decode, encode
from pemn.wire.protocols import FedAvgProtocol
from pemn.wire.spec import Spec
from pemn_client.node import QUERY, Node
from pemn_client.store import FileStore
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


def test_shares_of_the_first_images() -> None:
    spec = spec_of(partition="dirichlet:1.0")
    spec = replace(spec, data=replace(spec.data, num_images=200))
    data = load("digits", None, "train")
    wanted = shards(Partition.parse("dirichlet:1.0"), data.labels[:200], 3, spec.model.seed)
    assert sum(map(len, wanted)) == 200
    for slot, share in enumerate(wanted):
        trainer = TrainerFactory(device="cpu")(spec, slot)
        assert trainer.labels.tolist() == data.labels[share].tolist()
        assert np.array_equal(trainer.images.numpy(), spec.model.input.normalise(data.images[share]))


@pytest.mark.parametrize("partition", ["iid", "own"])
def test_more_images_than_there_are(partition: str) -> None:
    spec, factory = spec_of(partition=partition), TrainerFactory(device="cpu")
    every = len(load("digits", None, "train").labels)
    factory(replace(spec, data=replace(spec.data, num_images=every)), 0)
    with pytest.raises(
        WrongSpec, match=rf"training images: got {every + 1}; wanted at most {every}; in digits"
    ):
        factory(replace(spec, data=replace(spec.data, num_images=every + 1)), 0)


def test_fewer_images_than_shares() -> None:
    spec = spec_of()
    with pytest.raises(WrongSpec, match=r"shares of digits: too few images .* got 2 images; .* 3"):
        TrainerFactory(device="cpu")(replace(spec, data=replace(spec.data, num_images=2)), 0)


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


def test_data_from_installed_code_are_the_clients_choice() -> None:
    spec = spec_of()
    spec = replace(spec, data=replace(spec.data, dataset="antigravity:fly"))
    with pytest.raises(WrongSpec, match="data set from installed code: got antigravity:fly"):
        TrainerFactory()(spec, 0)
    assert "antigravity" not in sys.modules
    with pytest.raises(WrongSpec, match="data set: got antigravity:land"):
        TrainerFactory(dataset="antigravity:land")(spec, 0)


def test_only_masks_unless_the_user_says_so() -> None:
    spec = replace(spec_of(), protocol=FedAvgProtocol(0.5), method="fedavg")
    with pytest.raises(WrongSpec, match="method: got fedavg; wanted mask; in the run's spec"):
        TrainerFactory()(spec, 0)
    weights = np.zeros(spec.model.num_params, np.float32)
    trained, metrics = TrainerFactory(methods=("mask", "fedavg"))(spec, 0).train(weights, 1)
    assert trained.dtype == np.float32
    assert metrics.num_images > 0


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


def test_a_run_on_data_that_nobody_knows() -> None:
    spec = spec_of()
    with pytest.raises(DataError, match="unheard-of"):
        TrainerFactory()(replace(spec, data=replace(spec.data, dataset="unheard-of")), 0)


@pytest.mark.parametrize(
    ("partition", "num_slots", "error", "says"),
    [
        ("bogus", 3, MalformedFrame, "unknown partition: got 'bogus'"),
        ("dirichlet:nan", 3, MalformedFrame, "unknown partition: got 'dirichlet:nan'"),
        (
            "dirichlet:.3",
            3,
            MalformedFrame,
            "spelling of the partition: got dirichlet:.3; wanted dirichlet:0.3",
        ),
        ("dirichlet:0.3", 1 << 20, MalformedFrame, "slots times classes of dirichlet:0.3: got 10485760"),
        ("dirichlet:0.3", 1443, WrongSpec, "shares of digits: too few images .* got 1442 images; .* 1443"),
        ("iid", 1 << 20, WrongSpec, "shares of digits: too few images .* got 1442 images; .* 1048576"),
        ("classes:2", 1443, WrongSpec, "shares of digits: too few images .* got 1442 images; .* 1443"),
        ("classes:99", 3, WrongSpec, "shares of digits: classes of a client: got 99; wanted at most 10"),
    ],
)
def test_shares_that_the_data_do_not_allow_are_the_fault_of_the_run(
    tmp_path: Path, partition: str, num_slots: int, error: type[RemoteError], says: str
) -> None:
    spec = spec_of()
    spec = replace(spec, data=replace(spec.data, partition=partition, num_slots=num_slots))
    server = Server.of(spec)
    task = encode(server.tasks(server.start(), [1])[1])
    node = Node(1, FileStore(tmp_path), TrainerFactory(device="cpu"))
    with pytest.raises(error, match=says):
        node.handle(QUERY, decode(task))
    assert FileStore(tmp_path).load() is None


@pytest.mark.parametrize(("partition", "num_slots"), [("own", 1 << 20), ("iid", 1442), ("classes:10", 1442)])
def test_as_many_shares_as_the_data_allow(partition: str, num_slots: int) -> None:
    spec = spec_of()
    spec = replace(spec, data=replace(spec.data, partition=partition, num_slots=num_slots))
    TrainerFactory(device="cpu")(Spec.from_bytes(spec.to_bytes()), num_slots - 1)


def test_data_that_are_not_there(tmp_path: Path) -> None:
    spec = spec_of()
    with pytest.raises(DataError, match="nowhere"):
        TrainerFactory(data_dir=tmp_path / "nowhere")(
            replace(spec, data=replace(spec.data, dataset="cifar10")), 0
        )
