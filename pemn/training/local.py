"""A client's local training: of scores that decide which of the frozen weights are kept, or of ordinary weights."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from pemn.federation.levels import HIGHEST, LOWEST, ONE
from pemn.generator import Purpose, child, permutation
from pemn.rebuild import frozen_weights
from pemn.spec import ModelSpec
from pemn.training.networks import build
from pemn.training.scores import ScoreRule
from pemn.wire.messages import Metrics
from pemn.wire.protocols import FedAvgProtocol, FedPMProtocol, MaskProtocol, StcProtocol
from pemn.wire.spec import LocalTraining, Spec


class LocalTrainer(ABC):
    """Trains one array on a client's data; see `pemn.methods.method.Trainer`.

    The order of the images is keyed by seed, round, slot and epoch, so on one machine with one torch thread the
    same call gives the same result.

    Args:
        model: The network.
        training: Epochs, batch size and learning rate.
        images: float32 [N, C, H, W], normalised.
        labels: int64 [N].
        slot: The client's number; keys every draw.
        device: Where to train.
        clock: Seconds, for what is told of the time that it took.
    """

    def __init__(
        self,
        model: ModelSpec,
        training: LocalTraining,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        slot: int,
        device: torch.device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._training, self._slot, self._device = model, training, slot, device
        self._clock = clock
        self._images = torch.from_numpy(images).to(device)
        self._labels = torch.from_numpy(labels).to(device)
        self._prior = _log_prior(labels, model.num_classes).to(device) * training.logit_adjustment

    def train(self, start: NDArray[Any], round_: int) -> tuple[NDArray[Any], Metrics]:
        """Trains one round."""
        began = self._clock()
        self._module = _network(self._model, self._device, threading.get_ident())
        torch.manual_seed(self._key(round_) >> 1)
        trained = self._enter(start).to(self._device).requires_grad_(True)
        optimizer = self._optimizer(trained, self._training.learning_rate.at(round_))
        loss_sum = 0.0
        for epoch in range(self._training.epochs):
            losses = [self._step(trained, optimizer, batch) for batch in self._batches(round_, epoch)]
            loss_sum = float(torch.stack(losses).sum())
        metrics = Metrics(
            num_images=len(self._labels),
            loss_milli=round(1000 * min(loss_sum / len(self._labels), 4e6)),
            train_ms=round(1000 * (self._clock() - began)),
        )
        return self._leave(trained.detach().cpu()), metrics

    @abstractmethod
    def _enter(self, start: NDArray[Any]) -> Tensor:
        """Returns what is trained, float32 [n], for what the method starts from; a copy."""

    @abstractmethod
    def _leave(self, trained: Tensor) -> NDArray[Any]:
        """Returns what the method is given back."""

    @abstractmethod
    def _weights(self, trained: Tensor) -> Tensor:
        """Returns the weights of a forward pass, float32 [n]."""

    def _optimizer(self, trained: Tensor, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam([trained], lr=learning_rate, fused=True)

    def _key(self, *path: int) -> int:
        round_, *rest = path
        return child(self._model.seed, Purpose.BATCHES, round_, self._slot, *rest)

    def _batches(self, round_: int, epoch: int) -> list[Tensor]:
        order = torch.from_numpy(permutation(self._key(round_, epoch), len(self._labels))).to(self._device)
        return list(torch.split(order, self._training.batch_size))

    def _step(self, trained: Tensor, optimizer: torch.optim.Optimizer, batch: Tensor) -> Tensor:
        """Takes one step and returns the summed loss of the batch."""
        weights = self._weights(trained)
        # Each layer is a leaf of its own: through views of one tensor every gradient would be copied twice.
        named = unflatten(weights.detach(), self._model)
        layers = [part.requires_grad_() for part in named.values()]
        logits = functional_call(self._module, named, (self._images[batch],))
        loss = nn.functional.cross_entropy(logits + self._prior, self._labels[batch])
        by_layer = torch.autograd.grad(loss, layers)
        by_weight = torch.cat([part.reshape(-1) for part in by_layer])
        trained.grad = by_weight
        if weights is not trained:
            (trained.grad,) = torch.autograd.grad(weights, trained, by_weight)
        optimizer.step()
        return loss.detach() * len(batch)


class _ScoreTrainer(LocalTrainer):
    """Trains scores of the frozen weights with Adam."""

    _RULE: ClassVar[ScoreRule]

    def __init__(self, model: ModelSpec, *args: Any) -> None:
        super().__init__(model, *args)
        self._frozen = _frozen(model, self._device)

    def _weights(self, trained: Tensor) -> Tensor:
        # All layers at once: the rule looks at each score by itself.
        return self._RULE.weights(_untied(trained, self._model), self._frozen, training=True)


class MaskTrainer(_ScoreTrainer):
    """From q to p, uint16 in 1/65536; every forward pass uses the mask p > 1/2."""

    _RULE = ScoreRule("threshold")

    def _enter(self, start: NDArray[np.uint16]) -> Tensor:
        return _logits(start.astype(np.float64) / ONE)

    def _leave(self, trained: Tensor) -> NDArray[np.uint16]:
        p: NDArray[np.float64] = np.rint(ONE / (1 + np.exp(-trained.numpy().astype(np.float64))))
        return p.clip(LOWEST, HIGHEST).astype(np.uint16)


class DrawnTrainer(_ScoreTrainer):
    """From probabilities to probabilities, float32; every forward pass draws its mask, as FedPM does."""

    _RULE = ScoreRule("bernoulli")

    def _enter(self, start: NDArray[np.float32]) -> Tensor:
        return _logits(start.astype(np.float64))

    def _leave(self, trained: Tensor) -> NDArray[np.float32]:
        p = trained.sigmoid().clamp(LOWEST / ONE, HIGHEST / ONE)
        return p.numpy()


class WeightTrainer(LocalTrainer):
    """From weights to weights, float32, by SGD with momentum.

    Args:
        momentum: 0 .. below 1.
        args: See `LocalTrainer`.
    """

    def __init__(self, momentum: float, *args: Any) -> None:
        super().__init__(*args)
        self._momentum = momentum

    def _enter(self, start: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(start.copy())

    def _leave(self, trained: Tensor) -> NDArray[np.float32]:
        return trained.numpy()

    def _weights(self, trained: Tensor) -> Tensor:
        return trained

    def _optimizer(self, trained: Tensor, learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([trained], lr=learning_rate, momentum=self._momentum, fused=True)


def local_trainer(
    spec: Spec,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    slot: int,
    device: torch.device,
    clock: Callable[[], float] = time.monotonic,
) -> LocalTrainer:
    """Returns the trainer of a run's method.

    Args:
        spec: The run.
        images: float32 [N, C, H, W], normalised.
        labels: int64 [N].
        slot: The client's number.
        device: Where to train.
        clock: See `LocalTrainer`.
    """
    args = (spec.model, spec.training, images, labels, slot, device, clock)
    match spec.protocol:
        case MaskProtocol():
            return MaskTrainer(*args)
        case FedPMProtocol():
            return DrawnTrainer(*args)
        case FedAvgProtocol(momentum=momentum) | StcProtocol(momentum=momentum):
            return WeightTrainer(momentum, *args)


@lru_cache(maxsize=8)
def _network(model: ModelSpec, device: torch.device, thread: int) -> nn.Module:
    """The clients of a simulation share one: what it computes depends on the weights that it is given alone.

    But while it computes it holds those weights, so clients in threads of their own must have a module each.
    """
    return build(model.architecture, model.input.shape, model.num_classes).to(device)


@lru_cache(maxsize=1)
def _frozen(model: ModelSpec, device: torch.device) -> Tensor:
    """They share these too."""
    return torch.from_numpy(frozen_weights(model)).to(device)


def _log_prior(labels: NDArray[np.int64], num_classes: int) -> Tensor:
    """Returns the log of how frequent each class is among a client's images, float32 [num_classes].

    Half an image more of each, so that a class that it has none of is improbable, not impossible.

    Source: the logit-adjusted loss of Menon et al., ICLR 2021, equation 10.
    """
    counts = np.bincount(labels, minlength=num_classes) + 0.5
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


def _untied(scores: Tensor, model: ModelSpec) -> Tensor:
    """Returns a score for every weight, where several share one: the differentiable form of `pemn.mask.untied`.

    Args:
        scores: float32 [num_bits]; a weight whose bit is inverted has the negative score.
        model: The network.
    """
    if model.tie == 1:
        return scores
    parts = []
    for part, size in zip(torch.split(scores, list(model.bit_sizes)), model.sizes, strict=True):
        both = torch.stack((part, -part)).repeat(-(-model.tie // 2), 1)
        parts.append(both.reshape(-1)[:size])
    return torch.cat(parts)


def _logits(p: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.log(p / (1 - p)).astype(np.float32))


def unflatten(weights: Tensor, model: ModelSpec) -> dict[str, Tensor]:
    """Returns a network's weights by name, as views.

    Args:
        weights: float32 [n], layer after layer.
        model: The network.
    """
    parts = torch.split(weights, list(model.sizes))
    return {layer.name: part.view(layer.shape) for layer, part in zip(model.layers, parts, strict=True)}


@torch.no_grad()
def accuracy(
    module: nn.Module,
    model: ModelSpec,
    weights: NDArray[np.float32],
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    batch_size: int = 1000,
) -> float:
    """Returns the share of images that a model classifies rightly, 0 .. 1.

    Args:
        module: What `pemn.training.networks.build` made for the network.
        model: The network.
        weights: float32 [n], as `pemn.rebuild.rebuild` returns them.
        images: float32 [N, C, H, W], normalised.
        labels: int64 [N].
        batch_size: Images a forward pass.
    """
    named = unflatten(torch.tensor(weights), model)
    right = 0
    for begin in range(0, len(labels), batch_size):
        batch = torch.from_numpy(images[begin : begin + batch_size])
        predicted = functional_call(module, named, (batch,)).argmax(1).numpy()
        right += int(np.count_nonzero(predicted == labels[begin : begin + batch_size]))
    return right / len(labels)
