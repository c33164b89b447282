"""Local training: what it computes, and that it computes the same again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pemn.data.datasets import input_contract, load
from pemn.errors import ConfigError
from pemn.federation.levels import HIGHEST, LOWEST, Levels, normal_start_levels
from pemn.mask import Mask
from pemn.prototype import Strategy
from pemn.rebuild import frozen_weights, rebuild
from pemn.schedule import Schedule
from pemn.spec import ModelSpec, to_float32
from pemn.training.device import choose_device, set_threads
from pemn.training.local import MaskTrainer, accuracy
from pemn.training.models import model_spec
from pemn.training.networks import build
from pemn.wire.protocols import MaskProtocol
from pemn.wire.spec import LocalTraining

CPU = torch.device("cpu")


def digits_model(architecture: str = "mlp-24") -> tuple[ModelSpec, NDArray[np.float32], NDArray[np.int64]]:
    data = load("digits", None, "train")
    contract = input_contract("digits", data)
    model = model_spec(architecture, contract, 11, Strategy.parse("rp:1e-1"))
    return model, contract.normalise(data.images), data.labels


def trainer(learning_rate: float = 0.2, epochs: int = 1, slot: int = 0, batch_size: int = 64) -> MaskTrainer:
    model, images, labels = digits_model()
    plan = LocalTraining(epochs, batch_size, Schedule.always(to_float32(learning_rate)))
    return MaskTrainer(model, plan, images, labels, slot, CPU)


def start(model: ModelSpec) -> NDArray[np.uint16]:
    protocol = MaskProtocol(32768, Schedule.always(1), 1, normal_start_levels(3.0))
    return Levels(protocol, model.seed, model.sizes).at(np.zeros(model.num_params, np.int8))


def test_probabilities_that_are_not_trained_come_back_to_the_bit() -> None:
    """Every probability survives logit, float32 and sigmoid, so an idle client sends no flip."""
    model, images, labels = digits_model("mlp-1023")  # 75,702 weights: room for all
    q = np.resize(np.arange(LOWEST, HIGHEST + 1), model.num_params).astype(np.uint16)
    plan = LocalTraining(1, 1 << 20, Schedule.always(to_float32(1e-38)))
    trained, _ = MaskTrainer(model, plan, images[:8], labels[:8], 0, CPU).train(q, 1)
    assert np.array_equal(trained, q)


def test_training_makes_the_mask_better() -> None:
    model, images, labels = digits_model()
    module = build(model.architecture, model.input.shape, model.num_classes)

    def share(p: NDArray[np.uint16]) -> float:
        weights = rebuild(model, Mask.from_bits(p > 32768, model.sizes))
        return accuracy(module, model, weights, images, labels)

    q = start(model)
    trained, metrics = trainer(epochs=3).train(q, 1)
    assert share(trained) > max(0.8, share(q) + 0.3)
    assert metrics.num_images == len(labels)
    assert 0 < metrics.loss_milli < 2000
    assert trained.min() >= LOWEST
    assert trained.max() <= HIGHEST


def test_the_same_call_gives_the_same_scores_and_no_other_does() -> None:
    model, _, _ = digits_model()
    q = start(model)
    first, _ = trainer().train(q, 1)
    assert np.array_equal(trainer().train(q, 1)[0], first)
    assert not np.array_equal(trainer().train(q, 2)[0], first)
    assert not np.array_equal(trainer(slot=1).train(q, 1)[0], first)


def test_a_step_is_the_straight_through_gradient_through_adam() -> None:
    """One step on one batch, against autograd on the definition: dL/ds = dL/dm * p * (1 - p)."""
    model, images, labels = digits_model()
    q = start(model)
    trained, _ = trainer(batch_size=1 << 20).train(q, 1)

    p = torch.from_numpy(q.astype(np.float64) / 65536)
    mask = (p > 0.5).double().requires_grad_(True)
    module = build(model.architecture, model.input.shape, model.num_classes).double()
    parts = torch.split(torch.from_numpy(frozen_weights(model)).double() * mask, list(model.sizes))
    named = {v.name: w.view(v.shape) for v, w in zip(model.layers, parts, strict=True)}
    logits = torch.func.functional_call(module, named, (torch.from_numpy(images).double(),))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()  # type: ignore[no-untyped-call]
    assert mask.grad is not None
    gradient = mask.grad * p * (1 - p)
    # Adam's first step is the learning rate times g / (|g| + epsilon).
    score = torch.log(p / (1 - p)) - 0.2 * gradient / (gradient.abs() + 1e-8)
    wanted = (65536 * torch.sigmoid(score)).round().clamp(LOWEST, HIGHEST).numpy()
    sure = gradient.abs().numpy() > 1e-6  # below, float32 and epsilon decide
    assert sure.mean() > 0.5
    assert np.abs(trained.astype(int) - wanted)[sure].max() <= 8


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    if torch.cuda.is_available():
        assert choose_device("auto").type == "cuda"
    else:
        assert choose_device("auto") == CPU
        with pytest.raises(ConfigError, match="no CUDA device"):
            choose_device("cuda")


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    set_threads(None, num_processes=4)
    set_threads(None, num_processes=100)
    set_threads(3, num_processes=100)
    assert chosen == [2, 1, 3]
