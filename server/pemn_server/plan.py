"""From a person's options to the spec that every client gets, and the data that the server tests on."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pemn.data.datasets import input_contract, load
from pemn.errors import ConfigError, RemoteError
from pemn.partition import Partition
from pemn.spec import to_float32
from pemn.training.evaluation import accuracy
from pemn.training.models import model_spec
from pemn.training.networks import build
from pemn.wire.spec import DataPlan, LocalTraining, Spec
from pemn_server.methods import choose_method
from pemn_server.settings import RunOptions


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes:
        spec: What every client gets.
        images: Of the test split, float32 [N, C, H, W], normalised.
        labels: int64 [N].
    """

    spec: Spec
    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def accuracy(self, weights: NDArray[np.float32]) -> float:
        """Returns the share of the test images that a model classifies rightly.

        Args:
            weights: float32 [n], layer after layer.
        """
        model = self.spec.model
        module = build(model.architecture, model.input.shape, model.num_classes)
        return accuracy(module, model, weights, self.images, self.labels)


def make_plan(options: RunOptions) -> Plan:
    """Returns the plan of a run; whatever is wrong with the options comes out here, before anybody waits.

    Raises:
        ConfigError: If an option means nothing.
        DataError: If the data set is missing or unreadable.
    """
    choice, partition = choose_method(options), Partition.parse(options.partition)
    test = load(options.dataset, options.data_dir, "test")
    contract = input_contract(options.dataset, test)
    if partition.kind == "classes" and partition.num_classes > len(test.class_names):
        raise ConfigError(
            "classes of a client",
            got=partition.num_classes,
            wanted=f"at most {len(test.class_names)}",
            where=f"--partition {partition}",
        )
    seed = secrets.randbits(64) if options.seed is None else options.seed
    model = replace(model_spec(options.model, contract, seed, choice.strategy, choice.init), tie=choice.tie)
    if model.floats:
        raise ConfigError(
            "network with floats that a mask cannot express",
            got=", ".join(tensor.name for tensor in model.floats[:8]),
            wanted="one without biases, trained norms and running statistics",
            where=options.model,
        )
    spec = Spec(
        run_id=secrets.randbits(64),
        model=model,
        protocol=choice.protocol,
        training=LocalTraining(
            options.epochs, options.batch_size, choice.learning_rate, to_float32(options.logit_adjustment)
        ),
        data=DataPlan(options.dataset, str(partition), options.num_slots, options.images),
        method=choice.name,
        num_rounds=options.rounds,
    )
    try:
        # Whatever a client would refuse, the server finds first.
        Spec.from_bytes(spec.to_bytes())
    except (RemoteError, ValueError) as error:
        raise ConfigError(f"these options make no run: {error}") from error
    return Plan(spec, contract.normalise(test.images), test.labels)
