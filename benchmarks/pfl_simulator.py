"""Federated averaging in the simulator of pfl (apple/pfl-research), for `benchmarks.simulator` to have beside it.

It is not among our own requirements: `pip install 'pfl==0.6.*'`, beside the torch that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.internal.ops.pytorch_ops import get_default_device
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn


class _Learner(nn.Module):
    """A network with what pfl asks of one."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.network(images), labels)

    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        return {}


class _Marks(TrainingProcessCallback):  # type: ignore[misc]
    def __init__(self, mark: Callable[[], None]) -> None:
        self._mark = mark

    def on_train_begin(self, *, model: Any) -> Any:
        self._mark()
        return super().on_train_begin(model=model)

    def after_central_iteration(self, *args: Any, **options: Any) -> tuple[bool, Any]:
        self._mark()
        stop: tuple[bool, Any] = super().after_central_iteration(*args, **options)
        return stop


def pfl_fedavg(
    network: nn.Module,
    data: list[tuple[Tensor, Tensor]],
    num_rounds: int,
    learning_rate: float,
    batch_size: int,
    mark: Callable[[], None],
) -> None:
    """Runs it.

    Args:
        network: Its weights are trained where they are.
        data: Images and labels of each client; all of them take part in every round.
        num_rounds: How many.
        learning_rate: Of the clients' SGD.
        batch_size: Images a step.
        mark: Called before the first round and after each.
    """
    assert get_default_device() == torch.device("cpu")
    learner = _Learner(network)
    model = PyTorchModel(
        learner,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(learner.parameters(), lr=1.0),
    )
    clients = FederatedDataset(
        lambda user: Dataset(raw_data=data[user], user_id=str(user)),
        get_user_sampler("minimize_reuse", list(range(len(data)))),
    )
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=num_rounds,
            evaluation_frequency=num_rounds + 1,
            train_cohort_size=len(data),
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=clients, val_data=clients),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=learning_rate, local_num_epochs=1, local_batch_size=batch_size
        ),
        callbacks=[_Marks(mark)],
        send_metrics_to_platform=False,
    )
