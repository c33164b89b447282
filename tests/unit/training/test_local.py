"""Local training: what it computes, and that it computes the same again."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pemn.data.datasets import input_contract, load
from pemn.errors import ConfigError
from pemn.federation.levels import HIGHEST, LOWEST, Levels, normal_start_levels
from pemn.mask import Mask, untied
from pemn.prototype import Strategy
from pemn.rebuild import frozen_weights, rebuild
from pemn.schedule import Schedule
from pemn.spec import ModelSpec, to_float32
from pemn.training.device import choose_device, set_threads
from pemn.training.evaluation import accuracy
from pemn.training.local import (
    LocalTrainer,
    MaskTrainer,
    WeightTrainer,
    _log_prior,
    _summed,
    _untied,
    unflatten,
)
from pemn.training.models import model_spec
from pemn.training.networks import build
from pemn.training.scores import ScoreRule
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


@pytest.mark.parametrize("kind", [MaskTrainer, WeightTrainer])
def test_half_precision_trains_about_the_same_with_other_bits(kind: type[LocalTrainer]) -> None:
    model, images, labels = digits_model("cnn-8-8")
    plan = LocalTraining(1, 64, Schedule.always(to_float32(0.05)))
    begin = (
        start(model)
        if kind is MaskTrainer
        else np.random.default_rng(5).normal(0, 0.1, model.num_params).astype(np.float32)
    )

    def train(half: bool) -> tuple[NDArray[np.float64], int]:
        args = (model, plan, images[:600], labels[:600], 0, CPU, time.monotonic, half)
        trainer = MaskTrainer(*args) if kind is MaskTrainer else WeightTrainer(0.9, *args)
        trained, metrics = trainer.train(begin, 1)
        return trained.astype(np.float64) - begin, metrics.loss_milli

    (moves, loss), (half_moves, half_loss) = train(half=False), train(half=True)
    assert not np.array_equal(moves, half_moves)
    assert np.corrcoef(moves, half_moves)[0, 1] > 0.8
    assert abs(loss - half_loss) < 0.1 * loss
    assert np.array_equal(train(half=True)[0], half_moves)


def test_a_step_is_the_straight_through_gradient_through_adam() -> None:
    """One step on one batch, against autograd on the definition: dL/ds = dL/dm."""
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
    gradient = mask.grad
    # Adam's first step, as after a fifth of a step with gradients of the layer's size and of no direction.
    size = torch.cat([g.square().mean().expand_as(g) for g in torch.split(gradient, list(model.sizes))])
    second = (0.999 * (1 - 0.999**0.2) * size + 0.001 * gradient.square()) / (1 - 0.999**1.2)
    score = torch.log(p / (1 - p)) - 0.2 * 0.1 / (1 - 0.9**1.2) * gradient / (second.sqrt() + 1e-8)
    wanted = (65536 * torch.sigmoid(score)).round().clamp(LOWEST, HIGHEST).numpy()
    assert (np.abs(wanted - q) > 8).mean() > 0.5
    assert np.abs(trained.astype(int) - wanted).max() <= 8


@pytest.mark.parametrize("tie", [1, 3])
def test_scores_of_sums_give_the_weights_that_are_rebuilt(tie: int) -> None:
    model, _, _ = digits_model("mlp-23-9")
    first, second, head = model.layers
    model = replace(model, tie=tie, layers=(first, replace(second, terms=5), replace(head, terms=2)))
    scores = np.random.default_rng(tie).normal(0, 1, model.num_bits).astype(np.float32)
    rebuilt = rebuild(model, Mask.from_bits(scores > 0, model.bit_sizes))
    values = ScoreRule("threshold").weights(
        _untied(torch.from_numpy(scores), model), torch.from_numpy(frozen_weights(model)), training=True
    )
    weights = _summed(values, model)
    assert tuple(weights.shape) == rebuilt.shape == (model.num_params,)
    assert np.allclose(weights.numpy(), rebuilt, rtol=1e-6, atol=1e-6)
    assert torch.equal(_summed(torch.stack([values, -values]), model), torch.stack([weights, -weights]))
    assert len(np.unique(rebuilt[-head.size :])) == 5  # the sums of two, of the values +c, -c and 0


def tied(tie: int) -> tuple[ModelSpec, NDArray[np.float32], NDArray[np.int64]]:
    model, images, labels = digits_model("mlp-23")
    return replace(model, tie=tie), images, labels


@pytest.mark.parametrize("tie", [1, 2, 3, 8, 255, 256])
def test_tied_scores_give_tied_masks(tie: int) -> None:
    model, _, _ = tied(tie)
    scores = np.random.default_rng(tie).normal(0, 1, model.num_bits).astype(np.float32)
    spread = _untied(torch.from_numpy(scores), model)
    mask = Mask.from_bits(scores > 0, model.bit_sizes)
    assert spread.shape == (model.num_params,)
    assert np.array_equal((spread > 0).numpy(), untied(mask, model.sizes, tie).bits())
    assert np.array_equal(_untied(torch.from_numpy(np.stack([scores, -scores])), model)[0], spread)
    weights = ScoreRule("threshold").weights(spread, torch.from_numpy(frozen_weights(model)), training=True)
    assert weights.numpy().tobytes() == rebuild(model, mask).tobytes()


@pytest.mark.parametrize("tie", [2, 3, 8])
def test_a_tied_score_has_the_gradient_of_all_its_weights(tie: int) -> None:
    model, _, _ = tied(tie)
    scores = torch.randn(model.num_bits, generator=torch.Generator().manual_seed(1)).requires_grad_()
    by_weight = torch.randn(model.num_params, generator=torch.Generator().manual_seed(2))
    _untied(scores, model).backward(by_weight)  # type: ignore[no-untyped-call]
    wanted, begin = [], 0
    for size, count in zip(model.sizes, model.bit_sizes, strict=True):
        layer = by_weight[begin : begin + size].tolist()
        begin += size
        wanted += [
            sum(-layer[i] if i // count % 2 else layer[i] for i in range(bit, size, count))
            for bit in range(count)
        ]
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_a_client_trains_tied_scores() -> None:
    model, images, labels = tied(4)
    module = build(model.architecture, model.input.shape, model.num_classes)
    protocol = MaskProtocol(32768, Schedule.always(1), 1, normal_start_levels(3.0))
    q = Levels(protocol, model.seed, model.bit_sizes).at(np.zeros(model.num_bits, np.int8))
    plan = LocalTraining(3, 64, Schedule.always(to_float32(0.2)))
    trained, _ = MaskTrainer(model, plan, images, labels, 0, CPU).train(q, 1)
    before, after = (
        accuracy(module, model, rebuild(model, Mask.from_bits(p > 32768, model.bit_sizes)), images, labels)
        for p in (q, trained)
    )
    assert after > before + 0.4


def first_gradient(training: LocalTraining, labels: NDArray[np.int64]) -> tuple[float, NDArray[np.float32]]:
    """Loss and gradient of the first images, all in a batch."""
    model, images, _ = digits_model()
    local = MaskTrainer(model, training, images[: len(labels)], labels, 0, CPU)
    trained = local.enter(start(model))
    loss, gradient = local.gradient(
        local.network(), trained, local.images, local.labels, local.prior, [local.generator(1)]
    )
    return float(loss), gradient.numpy()


# Of the digits 0 .. 2 some, of 3 one, of the others none.
UNEVEN = np.array([0] * 40 + [1] * 15 + [2] * 4 + [3], np.int64)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.5])
def test_logits_are_adjusted_by_the_clients_own_classes(tau: float) -> None:
    """Against autograd on the definition: cross entropy of logits + tau * log of the class frequencies."""
    model, images, _ = digits_model()
    training = LocalTraining(1, 64, Schedule.always(to_float32(0.2)), tau)
    loss, gradient = first_gradient(training, UNEVEN)
    counts = np.array([40, 15, 4, 1, 0, 0, 0, 0, 0, 0]) + 0.5  # half an image more of each
    prior = torch.from_numpy(tau * np.log(counts / 65))
    p = torch.from_numpy(start(model).astype(np.float64) / 65536)
    mask = (p > 0.5).double().requires_grad_(True)
    module = build(model.architecture, model.input.shape, model.num_classes).double()
    parts = torch.split(torch.from_numpy(frozen_weights(model)).double() * mask, list(model.sizes))
    named = {v.name: w.view(v.shape) for v, w in zip(model.layers, parts, strict=True)}
    logits = torch.func.functional_call(module, named, (torch.from_numpy(images[: len(UNEVEN)]).double(),))
    adjusted = (logits + prior).log_softmax(1)
    wanted = -adjusted[torch.arange(len(UNEVEN)), torch.from_numpy(UNEVEN)].mean()
    wanted.backward()
    assert mask.grad is not None
    assert loss == pytest.approx(wanted.item(), rel=1e-4)
    np.testing.assert_allclose(gradient, mask.grad.numpy(), rtol=1e-3, atol=1e-6)


def test_the_gradient_of_a_logit_is_adjusted_probability_less_one() -> None:
    """By hand: two classes of four, no training; dL/dlogit = softmax(logit + tau * prior) - onehot."""
    prior = _log_prior(np.array([0, 0, 0, 1]), 4)
    wanted = np.log(np.array([3.5, 1.5, 0.5, 0.5]) / 6)
    np.testing.assert_allclose(prior.numpy(), wanted, rtol=1e-6)
    logits = torch.zeros(1, 4, requires_grad=True)
    torch.nn.functional.cross_entropy(logits + prior, torch.tensor([0])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy()[0], np.array([3.5 - 6, 1.5, 0.5, 0.5]) / 6, atol=1e-6)


def test_no_adjustment_is_plain_cross_entropy() -> None:
    model, images, _ = digits_model()
    rate = Schedule.always(to_float32(0.2))
    loss, gradient = first_gradient(LocalTraining(1, 64, rate, 0.0), UNEVEN)
    module = build(model.architecture, model.input.shape, model.num_classes)
    named = unflatten(
        torch.from_numpy(rebuild(model, Mask.from_bits(start(model) > 32768, model.sizes))), model
    )
    logits = torch.func.functional_call(module, named, (torch.from_numpy(images[: len(UNEVEN)]),))
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(UNEVEN))))
    other = first_gradient(LocalTraining(1, 64, rate, 1.0), UNEVEN)
    assert loss != other[0]
    assert not np.array_equal(gradient, other[1])


def test_even_classes_are_adjusted_by_nothing() -> None:
    even, rate = np.arange(60) % 10, Schedule.always(to_float32(0.2))
    plain, adjusted = (first_gradient(LocalTraining(1, 64, rate, tau), even) for tau in (0.0, 3.0))
    assert plain[0] == pytest.approx(adjusted[0], rel=1e-5)
    np.testing.assert_allclose(plain[1], adjusted[1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", ["mask", "weights"])
def test_the_learning_rate_is_that_of_the_round(kind: str) -> None:
    model, images, labels = digits_model()
    low, high = to_float32(0.01), to_float32(0.3)

    def trained(rate: Schedule[float], round_: int) -> NDArray[np.generic]:
        args = (model, LocalTraining(1, 512, rate), images, labels, 0, CPU)
        if kind == "mask":
            return MaskTrainer(*args).train(start(model), round_)[0]
        return WeightTrainer(0.5, *args).train(frozen_weights(model), round_)[0]

    rate = Schedule(((1, high), (3, low)))
    for round_, value in ((1, high), (2, high), (3, low), (9, low)):
        assert np.array_equal(trained(rate, round_), trained(Schedule.always(value), round_))
    assert not np.array_equal(trained(rate, 3), trained(Schedule.always(high), 3))


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
