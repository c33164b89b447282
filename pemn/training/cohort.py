"""The local training of several clients as one batch: their scores are stacked, and every step is one step of each.

It comes to what `LocalTrainer.train` does for one after another, but for the rounding of floats: each client sees its
own images in the same order, draws the same masks, and stops after its own last step. What it saves is the cost of
launching small work, which is most of the time where a GPU trains small networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pemn.errors import ConfigError
from pemn.training.local import NO_LABEL, LocalTrainer
from pemn.wire.messages import Metrics

_NO_IMAGE = -1  # the place of the last label, which is NO_LABEL
_CPU = torch.device("cpu")
_MAX_DIFFERENCE = 0.05
"""Of two gradients that are the same but for rounding, as a share of their norm."""


def train_cohort(
    trainers: Sequence[LocalTrainer], start: NDArray[Any], round_: int
) -> list[tuple[NDArray[Any], Metrics]]:
    """Trains clients of one run at once, all from the same start.

    Memory is that of as many networks, gradients and optimizers as there are clients, and one more copy of their
    images.

    Args:
        trainers: One a client, all made for the same run and device; their network must pass `check_cohort`.
        start: See `LocalTrainer.train`; so is what is returned, for each client.
        round_: See `LocalTrainer.train`.
    """
    if len(trainers) == 1:
        return [trainers[0].train(start, round_)]
    began = trainers[0].clock()
    # Those that take the most steps first, so that whoever still trains is at the front of the stack.
    order = sorted(range(len(trainers)), key=lambda i: -trainers[i].num_steps)
    trained, loss_sums = _train([trainers[i] for i in order], start, round_)
    seconds = (trainers[0].clock() - began) / len(trainers)
    results = {}
    for i, row, loss_sum in zip(order, trained, loss_sums, strict=True):
        # A copy: who keeps one result must not keep the whole stack.
        results[i] = trainers[i].leave(row.clone()), trainers[i].metrics(loss_sum, seconds)
    return [results[i] for i in range(len(trainers))]


def _train(trainers: Sequence[LocalTrainer], start: NDArray[Any], round_: int) -> tuple[Tensor, list[float]]:
    """Trains clients that are sorted by their number of steps, most first.

    Returns:
        float32 [A, n], and each client's summed loss in its last epoch.
    """
    lead = trainers[0]
    network = lead.network()
    trained = lead.enter(start).repeat(len(trainers), 1)
    rows = list(trained)
    optimizer = lead.optimizer(rows, [trainer.num_steps for trainer in trainers], round_)
    generators = [trainer.generator(round_) for trainer in trainers]
    priors = torch.stack([trainer.prior for trainer in trainers])
    images = torch.cat([trainer.images for trainer in trainers])
    labels = torch.cat([*(trainer.labels for trainer in trainers), images.new_full((1,), NO_LABEL).long()])
    steps, offset = [], 0
    for trainer in trainers:
        steps.append(_steps(trainer, round_, offset))
        offset += len(trainer.labels)

    losses: list[tuple[Tensor, list[int]]] = []
    for step in range(lead.num_steps):
        active = sum(trainer.num_steps > step for trainer in trainers)
        batches, in_last_epoch = zip(*map(next, steps[:active]), strict=True)
        # The padding is an image of somebody's, and has no label: it changes neither loss nor gradient.
        batch = _send(pad_sequence(list(batches), batch_first=True, padding_value=_NO_IMAGE), lead.device)
        loss, gradients = lead.gradient(
            network, trained[:active], images[batch], labels[batch], priors[:active], generators[:active]
        )
        for row, gradient in zip(rows[:active], gradients, strict=True):
            row.grad = gradient
        for row in rows[active:]:
            row.grad = None  # so that nothing moves it on
        optimizer.step()
        if any(in_last_epoch):
            losses.append((loss, [len(own) * last for own, last in zip(batches, in_last_epoch, strict=True)]))

    sums = np.zeros(len(trainers))
    for loss, counts in losses:  # only now: to look at a loss is to wait for the device
        sums[: len(counts)] += np.multiply(loss.tolist(), counts)
    return trained, sums.tolist()


def _steps(trainer: LocalTrainer, round_: int, offset: int) -> Iterator[tuple[Tensor, bool]]:
    """Yields a client's steps: int64 [B], its images' places in all clients', and whether the epoch is its last."""
    epochs = trainer.training.epochs
    for epoch in range(epochs):
        for batch in trainer.batches(round_, epoch, _CPU):
            yield batch + offset, epoch == epochs - 1


def _send(batch: Tensor, device: torch.device) -> Tensor:
    # From pinned memory the copy need not wait for the steps that the device has yet to do.
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)


def check_cohort(trainer: LocalTrainer) -> None:
    """Checks that clients with this trainer's network can be trained at once, by trying it.

    Raises:
        ConfigError: If they cannot: if torch has no way to batch its operations, it draws (dropout), or what it gives
            for an image depends on the others of the batch (batch norm), so that a batch cannot be filled up.
    """
    model, draw = trainer.model, torch.Generator().manual_seed(0)
    network = trainer.network()
    images = torch.randn(2, 3, *model.input.shape, generator=draw).to(trainer.device)
    labels = (torch.arange(6).view(2, 3) % model.num_classes).to(trainer.device)
    labels[1, 2] = NO_LABEL
    trained = torch.randn(2, model.num_bits, generator=draw).to(trainer.device) / 16
    try:
        _, together = trainer.gradient(
            network,
            trained,
            images,
            labels,
            trainer.prior.repeat(2, 1),
            [trainer.generator(0) for _ in range(2)],
        )
    except (RuntimeError, ValueError) as error:
        raise _refused(trainer, str(error).partition("\n")[0]) from error
    for client, count in enumerate((3, 2)):
        _, alone = trainer.gradient(
            network,
            trained[client],
            images[client, :count],
            labels[client, :count],
            trainer.prior,
            [trainer.generator(0)],
        )
        if not (together[client] - alone).norm() <= _MAX_DIFFERENCE * alone.norm():
            raise _refused(trainer, "its images do not go through it each by itself")


def _refused(trainer: LocalTrainer, why: str) -> ConfigError:
    wanted = "clients that train one after another"
    return ConfigError(
        "network cannot train clients at once", got=why, wanted=wanted, where=trainer.model.architecture
    )
