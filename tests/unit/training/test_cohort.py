"""Training of several clients at once: it comes to what each comes to by itself."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pemn.data.datasets import input_contract, load
from pemn.errors import ConfigError
from pemn.federation.levels import HIGHEST, LOWEST
from pemn.prototype import Strategy
from pemn.schedule import Schedule
from pemn.spec import ModelSpec, to_float32
from pemn.training.cohort import check_cohort, train_cohort
from pemn.training.device import choose_device
from pemn.training.local import DrawnTrainer, LocalTrainer, MaskTrainer, WeightTrainer
from pemn.training.models import model_spec
from pemn.wire.spec import LocalTraining

CPU = torch.device("cpu")
BATCH_SIZE = 16
SHARDS = (1, 70, 16, 17, 70, 33)
"""Images a client: one, whole batches, batches that end with a single image, several steps and few."""

KINDS = ("mask", "drawn", "weights")


def trainers(
    kind: str,
    epochs: int = 2,
    architecture: str = "mlp-24",
    device: torch.device = CPU,
    half: bool = False,
) -> list[LocalTrainer]:
    data = load("digits", None, "train")
    contract = input_contract("digits", data)
    model = model_spec(architecture, contract, 11, Strategy.parse("rp:1e-1"))
    images = contract.normalise(data.images)
    made: list[LocalTrainer] = []
    begin = 0
    for slot, size in enumerate(SHARDS):
        end = begin + size
        plan = LocalTraining(epochs, BATCH_SIZE, Schedule.always(to_float32(0.05)))
        args = (model, plan, images[begin:end], data.labels[begin:end], slot, device, lambda: 0.0, half)
        match kind:
            case "mask":
                made.append(MaskTrainer(*args))
            case "drawn":
                made.append(DrawnTrainer(*args))
            case _:
                made.append(WeightTrainer(0.9, *args))
        begin = end
    return made


def start(kind: str, model: ModelSpec) -> NDArray[Any]:
    draw = np.random.default_rng(5)
    match kind:
        case "mask":
            return draw.integers(LOWEST, HIGHEST + 1, model.num_params, np.uint16)
        case "drawn":
            return draw.uniform(0.01, 0.99, model.num_params).astype(np.float32)
        case _:
            return draw.normal(0, 0.1, model.num_params).astype(np.float32)


def assert_close(kind: str, got: NDArray[Any], wanted: NDArray[Any], apart: float = 1.0) -> None:
    """Holds two results to be the same but for rounding: in 1/65536 for mask, else as floats."""
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    difference = np.abs(got.astype(np.float64) - wanted)
    # A gradient next to zero may come out with either sign, and Adam takes a whole step for it: some 800 / 65536.
    assert np.mean(difference <= apart * (4 if kind == "mask" else 1e-5)) > 0.99
    assert difference.mean() <= apart * (2 if kind == "mask" else 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("architecture", ["mlp-24", "cnn-8-8"])
def test_a_cohort_comes_to_what_each_comes_to_alone(kind: str, epochs: int, architecture: str) -> None:
    clients = trainers(kind, epochs, architecture)
    begin = start(kind, clients[0].model)
    check_cohort(clients[0])
    for client, (got, metrics) in zip(clients, train_cohort(clients, begin, 3), strict=True):
        wanted, wanted_metrics = client.train(begin, 3)
        assert (wanted != begin).mean() > 0.5  # so that there is something to be equal in
        assert_close(kind, got, wanted)
        assert metrics.num_images == wanted_metrics.num_images
        assert abs(metrics.loss_milli - wanted_metrics.loss_milli) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_cohort_in_half_precision(kind: str) -> None:
    clients = trainers(kind, 1, "cnn-8-8", half=True)
    begin = start(kind, clients[0].model)
    check_cohort(clients[0])
    alike = []
    for client, (together, _) in zip(clients, train_cohort(clients, begin, 3), strict=True):
        moves = [trained.astype(np.float64) - begin for trained in (client.train(begin, 3)[0], together)]
        alike.append(np.corrcoef(moves)[0, 1])
    # Of one client alone rounding may change more: what is next to zero grows, step by step.
    assert np.median(alike) > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["mlp-24", "cnn-8-8"])
def test_a_cohort_on_a_gpu(kind: str, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # it rounds to 10 bits
    clients = trainers(kind, 1, architecture, choose_device("cuda"))
    begin = start(kind, clients[0].model)
    check_cohort(clients[0])
    for client, (got, metrics) in zip(clients, train_cohort(clients, begin, 3), strict=True):
        wanted, wanted_metrics = client.train(begin, 3)
        assert (wanted != begin).mean() > 0.5
        assert_close(kind, got, wanted, apart=4)
        assert abs(metrics.loss_milli - wanted_metrics.loss_milli) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_changed_by_who_else_is_in_the_cohort(kind: str) -> None:
    clients = trainers(kind)
    begin = start(kind, clients[0].model)
    everyone = [trained for trained, _ in train_cohort(clients, begin, 1)]
    for chosen in ([0, 1], [5, 3, 0], [4, 1, 2]):
        some = train_cohort([clients[i] for i in chosen], begin, 1)
        for i, (trained, _) in zip(chosen, some, strict=True):
            assert_close(kind, trained, everyone[i])
    assert not np.array_equal(everyone[1], everyone[4])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cohort_of_one_is_the_client_alone_to_the_bit(kind: str) -> None:
    client = trainers(kind)[1]
    begin = start(kind, client.model)
    ((got, metrics),) = train_cohort([client], begin, 2)
    wanted, wanted_metrics = client.train(begin, 2)
    assert got.tobytes() == wanted.tobytes()
    assert metrics == wanted_metrics


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_does_not_hold_the_others(kind: str) -> None:
    clients = trainers(kind, epochs=1)
    for trained, _ in train_cohort(clients, start(kind, clients[0].model), 1):
        owner: Any = trained.base  # of a float array torch's tensor, of an integer one none
        assert owner is None or owner.untyped_storage().nbytes() == trained.nbytes


def test_drawn_masks_are_nobody_elses() -> None:
    """What torch's global generator is at, or what is drawn from it meanwhile, changes nothing."""
    client = trainers("drawn")[1]
    begin = start("drawn", client.model)
    torch.manual_seed(1)
    first, _ = client.train(begin, 1)
    torch.manual_seed(2)
    again, _ = client.train(begin, 1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, client.train(begin, 2)[0])


class BatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(64, 8, bias=False), nn.Linear(8, 10, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.linear(image.flatten(1))
        hidden = (hidden - hidden.mean(0)) / (hidden.std(0) + 1e-3)
        logits: Tensor = self.head(hidden.relu())
        return logits


class Dropout(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(64, 8, bias=False), nn.Dropout(), nn.Linear(8, 10, bias=False)
        )


class Branching(Dropout):
    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self[3](self[1](self[0](image)))
        return logits if logits.sum() > 0 else -logits


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (BatchNorm, "its images do not go through it each by itself"),
        (Dropout, "random"),
        (Branching, "vmap"),
    ],
)
def test_a_network_that_cannot_is_refused(
    network: type[nn.Module], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("pemn_test_networks")
    module.__dict__["make"] = lambda shape, classes: network()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    client = trainers("weights", architecture="pemn_test_networks:make")[1]
    client.train(start("weights", client.model), 1)  # by itself it can
    with pytest.raises(
        ConfigError, match=f"cannot train clients at once.*{why}.*one after another"
    ) as caught:
        check_cohort(client)
    assert "\n" not in str(caught.value)
