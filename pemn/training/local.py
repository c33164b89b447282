"""A client's local training: of scores that decide which of the frozen weights are kept, or of ordinary weights."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pemn.federation.levels import HIGHEST, LOWEST, ONE
from pemn.generator import Purpose, child, permutation
from pemn.rebuild import frozen_weights
from pemn.spec import ModelSpec
from pemn.training.networks import build
from pemn.training.optimizer import ScoreAdam
from pemn.training.scores import ScoreRule
from pemn.wire.messages import Metrics
from pemn.wire.protocols import FedAvgProtocol, FedPMProtocol, MaskProtocol, StcProtocol
from pemn.wire.spec import LocalTraining, Spec

NO_LABEL = -100
"""The label of an image that counts for nothing."""

_LEVELS = np.arange(ONE).clip(LOWEST, HIGHEST) / ONE
_LOGITS = np.log(_LEVELS / (1 - _LEVELS)).astype(np.float32)
"""By the probability in 1/65536."""


class LocalTrainer(ABC):
    """Trains one array on a client's data; see `pemn.methods.method.Trainer`.

    The order of the images and the drawn masks are keyed by seed, round, slot and epoch, so on one machine with one
    torch thread the same call gives the same result.

    `train` trains this client alone. Its parts, from `network` on, are what `pemn.training.cohort` trains several
    clients at once with; those that take no round are the same for all clients of a run.

    Args:
        model: The network.
        training: Epochs, batch size and learning rate.
        images: float32 [N, C, H, W], normalised.
        labels: int64 [N].
        slot: The client's number; keys every draw.
        device: Where to train.
        clock: Seconds, for what is told of the time that it took.
        half: Whether forward and backward passes run in bfloat16 (torch.autocast), which processors that have it do in
            less than half the time; what is trained stays float32.
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
        half: bool = False,
    ) -> None:
        self.model, self.training, self.device = model, training, device
        self._half = half
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.prior = _log_prior(labels, model.num_classes).to(device) * training.logit_adjustment
        self.clock = clock
        self._slot = slot

    def train(self, start: NDArray[Any], round_: int) -> tuple[NDArray[Any], Metrics]:
        """Trains one round."""
        began = self.clock()
        network, generator = self.network(), self.generator(round_)
        _seed_default(self.device, self._key(round_, self.training.epochs) >> 1)
        trained = self.enter(start)
        optimizer = self.optimizer([trained], [self.num_steps], round_)
        loss_sum = 0.0
        for epoch in range(self.training.epochs):
            losses = []
            for batch in self.batches(round_, epoch, self.device):
                images, labels = self.images[batch], self.labels[batch]
                loss, trained.grad = self.gradient(network, trained, images, labels, self.prior, [generator])
                optimizer.step()
                losses.append(loss * len(batch))
            loss_sum = float(torch.stack(losses).sum())
        return self.leave(trained), self.metrics(loss_sum, self.clock() - began)

    def network(self) -> nn.Module:
        """Returns the network, whose own weights mean nothing, for the thread that asks."""
        return _network(self.model, self.device, threading.get_ident())

    def enter(self, start: NDArray[Any]) -> Tensor:
        """Returns what is trained, float32 [n] on the device, for what the method starts from; a copy."""
        return self._enter(start).to(self.device)

    def leave(self, trained: Tensor) -> NDArray[Any]:
        """Returns what the method is given back for float32 [n]."""
        return self._leave(trained.cpu())

    def gradient(
        self,
        network: nn.Module,
        trained: Tensor,
        images: Tensor,
        labels: Tensor,
        prior: Tensor,
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """Returns the mean loss of a batch and its gradient, of one client or, stacked, of A clients at once.

        Args:
            network: What `network` returned.
            trained: float32 [n] or [A, n].
            images: float32 [B, C, H, W] or [A, B, C, H, W].
            labels: int64 [B] or [A, B]; `NO_LABEL` where an image only fills up the batch.
            prior: What is added to the logits, float32 [num_classes] or [A, num_classes].
            generators: What the masks of each client are drawn from.

        Returns:
            float32 [] or [A], and float32 shaped as `trained`.
        """
        leaf = trained.detach().requires_grad_()
        weights = self._weights(leaf, generators)
        # Each layer is a leaf of its own: through views of one tensor every gradient would be copied twice.
        named = unflatten(weights.detach(), self.model)
        if trained.dim() == 1:
            layers = _put(network, named)
            with self._autocast():
                losses = _loss(network(images) + prior, labels)
        else:
            layers = [part.requires_grad_() for part in named.values()]
            with self._autocast():
                losses = vmap(
                    lambda named, images, labels, prior: _loss(
                        functional_call(network, named, (images,)) + prior, labels
                    )
                )(named, images, labels, prior)
        by_layer = torch.autograd.grad(losses.sum(), layers)
        by_weight = torch.cat([part.reshape(*trained.shape[:-1], -1) for part in by_layer], dim=-1)
        if weights is not leaf:
            (by_weight,) = torch.autograd.grad(weights, leaf, by_weight)
        return losses.detach(), by_weight

    def optimizer(
        self, rows: Sequence[Tensor], num_steps: Sequence[int], round_: int
    ) -> torch.optim.Optimizer:
        """Returns the optimizer of what is trained, one for all clients.

        It leaves alone those without a gradient, their momentum and step count too.

        Args:
            rows: float32 [n] a client.
            num_steps: How many steps each client is going to take.
            round_: Which round.
        """
        return torch.optim.Adam(rows, lr=self.training.learning_rate.at(round_), fused=True)

    @property
    def num_steps(self) -> int:
        """How many steps this client takes in a round."""
        return self.training.epochs * -(-len(self.labels) // self.training.batch_size)

    def batches(self, round_: int, epoch: int, device: torch.device) -> tuple[Tensor, ...]:
        """Returns which of its images each step of an epoch looks at: int64, of unequal sizes."""
        order = torch.from_numpy(permutation(self._key(round_, epoch), len(self.labels))).to(device)
        return torch.split(order, self.training.batch_size)

    def generator(self, round_: int) -> torch.Generator:
        """Returns what this client draws its masks from."""
        return torch.Generator(self.device).manual_seed(self._key(round_) >> 1)

    def metrics(self, loss_sum: float, seconds: float) -> Metrics:
        """Returns what is told of a round.

        Args:
            loss_sum: Of all images, in the last epoch.
            seconds: How long it took.
        """
        return Metrics(
            num_images=len(self.labels),
            loss_milli=round(1000 * min(loss_sum / len(self.labels), 4e6)),
            train_ms=round(1000 * seconds),
        )

    @abstractmethod
    def _enter(self, start: NDArray[Any]) -> Tensor:
        """See `enter`; on the CPU."""

    @abstractmethod
    def _leave(self, trained: Tensor) -> NDArray[Any]:
        """See `leave`; from the CPU."""

    @abstractmethod
    def _weights(self, trained: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Returns the weights of a forward pass, shaped as `trained`; see `gradient`."""

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self._half else nullcontext()

    def _key(self, *path: int) -> int:
        round_, *rest = path
        return child(self.model.seed, Purpose.BATCHES, round_, self._slot, *rest)


class _ScoreTrainer(LocalTrainer):
    """Trains scores of the frozen weights with Adam."""

    _RULE: ClassVar[ScoreRule]

    def __init__(self, model: ModelSpec, *args: Any) -> None:
        super().__init__(model, *args)
        self._frozen = _frozen(model, self.device)

    def _weights(self, trained: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        # All layers at once: the rule looks at each score by itself.
        uniform = _uniform(trained, generators) if self._RULE.draws else None
        scores = _untied(trained, self.model)
        return _summed(self._RULE.weights(scores, self._frozen, training=True, uniform=uniform), self.model)


class MaskTrainer(_ScoreTrainer):
    """From q to p, uint16 in 1/65536; every forward pass uses the mask p > 1/2."""

    _RULE = ScoreRule("threshold")

    def optimizer(
        self, rows: Sequence[Tensor], num_steps: Sequence[int], round_: int
    ) -> torch.optim.Optimizer:
        """See `LocalTrainer`."""
        return ScoreAdam(rows, num_steps, self.model, self.training.learning_rate.at(round_))

    def _enter(self, start: NDArray[np.uint16]) -> Tensor:
        return torch.from_numpy(_LOGITS.take(start))

    def _leave(self, trained: Tensor) -> NDArray[np.uint16]:
        # Off by less than a hundredth of a level, so that p is q again where nothing was learnt.
        p = trained.sigmoid().mul_(ONE).round_().clamp_(LOWEST, HIGHEST)
        return p.numpy().astype(np.uint16)


class DrawnTrainer(_ScoreTrainer):
    """From probabilities to probabilities, float32; every forward pass draws its mask, as FedPM does."""

    _RULE = ScoreRule("bernoulli")

    def _enter(self, start: NDArray[np.float32]) -> Tensor:
        p = start.astype(np.float64)
        return torch.from_numpy(np.log(p / (1 - p)).astype(np.float32))

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

    def _weights(self, trained: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return trained

    def optimizer(
        self, rows: Sequence[Tensor], num_steps: Sequence[int], round_: int
    ) -> torch.optim.Optimizer:
        """See `LocalTrainer`."""
        learning_rate = self.training.learning_rate.at(round_)
        return torch.optim.SGD(rows, lr=learning_rate, momentum=self._momentum, fused=True)


def local_trainer(
    spec: Spec,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    slot: int,
    device: torch.device,
    clock: Callable[[], float] = time.monotonic,
    half: bool = False,
) -> LocalTrainer:
    """Returns the trainer of a run's method.

    Args:
        spec: The run.
        images: float32 [N, C, H, W], normalised.
        labels: int64 [N].
        slot: The client's number.
        device: Where to train.
        clock: See `LocalTrainer`.
        half: See `LocalTrainer`.
    """
    args = (spec.model, spec.training, images, labels, slot, device, clock, half)
    match spec.protocol:
        case MaskProtocol():
            return MaskTrainer(*args)
        case FedPMProtocol():
            return DrawnTrainer(*args)
        case FedAvgProtocol(momentum=momentum) | StcProtocol(momentum=momentum):
            return WeightTrainer(momentum, *args)


def _put(network: nn.Module, named: dict[str, Tensor]) -> list[Tensor]:
    """Makes these a network's own weights, without copying them; returns its parameters in their order.

    What `functional_call` does for one call takes a quarter of a millisecond every time.
    """
    parameters = _parameters(network, tuple(named))
    for parameter, weights in zip(parameters, named.values(), strict=True):
        parameter.data = weights
    return parameters


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, ignore_index=NO_LABEL)


@lru_cache(maxsize=8)
def _parameters(network: nn.Module, names: tuple[str, ...]) -> list[Tensor]:
    """To look them up takes a tenth of a millisecond, at every step."""
    return [network.get_parameter(name) for name in names]


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


def _seed_default(device: torch.device, seed: int) -> None:
    """Seeds what networks draw from by themselves, as dropout does.

    `torch.manual_seed` does it for every kind of device there could be, and takes 4 ms.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _log_prior(labels: NDArray[np.int64], num_classes: int) -> Tensor:
    """Returns the log of how frequent each class is among a client's images, float32 [num_classes].

    Half an image more of each, so that a class that it has none of is improbable, not impossible.

    Source: the logit-adjusted loss of Menon et al., ICLR 2021, equation 10.
    """
    counts = np.bincount(labels, minlength=num_classes) + 0.5
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


def _untied(scores: Tensor, model: ModelSpec) -> Tensor:
    """Returns a score for every value, where several share one: the differentiable form of `pemn.mask.untied`.

    Args:
        scores: float32 [num_bits] or [A, num_bits]; a value whose bit is inverted has the negative score.
        model: The network.
    """
    if model.tie == 1:
        return scores
    parts = []
    for part, size in zip(torch.split(scores, list(model.bit_sizes), dim=-1), model.value_sizes, strict=True):
        rows = torch.stack((part, -part) * -(-model.tie // 2), dim=-2)
        parts.append(rows.flatten(-2)[..., :size])
    return torch.cat(parts, dim=-1)


def _summed(values: Tensor, model: ModelSpec) -> Tensor:
    """Returns the weights that masked values add up to, as `pemn.rebuild.rebuild` does, but for their last places.

    Args:
        values: float32 [num_values] or [A, num_values], times their scales.
        model: The network.

    Returns:
        float32 [num_params] or [A, num_params].
    """
    if model.num_values == model.num_params:
        return values
    parts, stack = [], values.shape[:-1]
    for layer, part in zip(model.layers, torch.split(values, list(model.value_sizes), dim=-1), strict=True):
        parts.append(part.view(*stack, layer.terms, layer.size).sum(-2) if layer.terms > 1 else part)
    return torch.cat(parts, dim=-1)


def _uniform(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Returns numbers from 0 to 1, float32 shaped as `like`, [n] or [A, n]; each row is drawn by its own generator."""
    drawn = torch.empty_like(like)
    for row, generator in zip(drawn.view(-1, like.shape[-1]), generators, strict=True):
        row.uniform_(generator=generator)
    return drawn


def unflatten(weights: Tensor, model: ModelSpec) -> dict[str, Tensor]:
    """Returns a network's weights by name, as views.

    Args:
        weights: float32 [n], layer after layer; or [A, n], of several clients.
        model: The network.
    """
    parts = torch.split(weights, list(model.sizes), dim=-1)
    stack = weights.shape[:-1]
    return {
        layer.name: part.view(*stack, *layer.shape) for layer, part in zip(model.layers, parts, strict=True)
    }
