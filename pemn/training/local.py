"""A client's local training: scores that decide which of the frozen weights are kept."""

from __future__ import annotations

import time

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
from pemn.wire.spec import LocalTraining

_RULE = ScoreRule("threshold")


class MaskTrainer:
    """Trains scores with Adam; every forward pass uses the mask p > 1/2 of the scores, p = sigmoid(s).

    The order of the images is keyed by seed, round, slot and epoch, so on one machine with one torch thread the
    same call gives the same scores.

    Args:
        model: The network.
        training: Epochs, batch size and learning rate.
        images: float32 [N, C, H, W], normalised.
        labels: int64 [N].
        slot: The client's number; keys the order of the images.
        device: Where to train.
    """

    def __init__(
        self,
        model: ModelSpec,
        training: LocalTraining,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        slot: int,
        device: torch.device,
    ) -> None:
        self._model, self._training, self._slot, self._device = model, training, slot, device
        self._module = build(model.architecture, model.input.shape, model.num_classes).to(device)
        self._frozen = torch.from_numpy(frozen_weights(model)).to(device)
        self._images = torch.from_numpy(images).to(device)
        self._labels = torch.from_numpy(labels).to(device)

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        """Trains one round; see `pemn.methods.method.Trainer`."""
        began = time.monotonic()
        start = q.astype(np.float64) / ONE
        scores = torch.from_numpy(np.log(start / (1 - start)).astype(np.float32)).to(self._device)
        scores.requires_grad_(True)
        optimizer = torch.optim.Adam([scores], lr=self._training.learning_rate)
        loss_sum = 0.0
        for epoch in range(self._training.epochs):
            losses = [self._step(scores, optimizer, batch) for batch in self._batches(round_, epoch)]
            loss_sum = float(torch.stack(losses).sum())
        final = scores.detach().cpu().numpy().astype(np.float64)
        trained: NDArray[np.float64] = np.rint(ONE / (1 + np.exp(-final)))
        metrics = Metrics(
            num_images=len(self._labels),
            loss_milli=round(1000 * min(loss_sum / len(self._labels), 4e6)),
            train_ms=round(1000 * (time.monotonic() - began)),
        )
        return trained.clip(LOWEST, HIGHEST).astype(np.uint16), metrics

    def _batches(self, round_: int, epoch: int) -> list[Tensor]:
        key = child(self._model.seed, Purpose.BATCHES, round_, self._slot, epoch)
        order = torch.from_numpy(permutation(key, len(self._labels))).to(self._device)
        return list(torch.split(order, self._training.batch_size))

    def _step(self, scores: Tensor, optimizer: torch.optim.Adam, batch: Tensor) -> Tensor:
        """Takes one step and returns the summed loss of the batch."""
        # All layers at once: the rule looks at each score by itself.
        weights = _RULE.weights(scores, self._frozen, training=True)
        logits = functional_call(self._module, unflatten(weights, self._model), (self._images[batch],))
        loss = nn.functional.cross_entropy(logits, self._labels[batch])
        (scores.grad,) = torch.autograd.grad(loss, scores)
        optimizer.step()
        return loss.detach() * len(batch)


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
    named = unflatten(torch.from_numpy(weights), model)
    right = 0
    for begin in range(0, len(labels), batch_size):
        batch = torch.from_numpy(images[begin : begin + batch_size])
        predicted = functional_call(module, named, (batch,)).argmax(1).numpy()
        right += int(np.count_nonzero(predicted == labels[begin : begin + batch_size]))
    return right / len(labels)
