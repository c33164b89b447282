"""Makes a client's trainer: its share of the data, on its device."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pemn.data.dataset import Dataset
from pemn.data.datasets import load
from pemn.data.partition import shards
from pemn.errors import DataError, WrongSpec
from pemn.installed import is_installed
from pemn.partition import Partition
from pemn.training.device import choose_device
from pemn.training.local import LocalTrainer, local_trainer
from pemn.training.models import check_model
from pemn.wire.spec import DataPlan, Spec

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerFactory:
    """Checks that this machine can take part in a run, and makes its trainer.

    Attributes:
        dataset: Name of the data that this client has; None takes the run's, unless it is from installed code.
        data_dir: Where they lie.
        num_slots: How many shares this client believes there are; None takes the run's.
        device: `auto`, `cpu` or `cuda`.
        model: The network from installed code (`PKG:FACTORY`, `timm:NAME`) that the run may use, if any.
        clock: Seconds, for what is told of the time that training took.
        methods: That the run may have. By default only the one that promises masks and nothing else.
        half: Whether to train in bfloat16; see `LocalTrainer`.
    """

    dataset: str | None = None
    data_dir: Path | None = None
    num_slots: int | None = None
    device: str = "auto"
    model: str | None = None
    methods: tuple[str, ...] = ("mask",)
    clock: Callable[[], float] = time.monotonic
    half: bool = False

    def __call__(self, spec: Spec, slot: int) -> LocalTrainer:
        """Returns the trainer of one slot.

        Raises:
            WrongSpec: If the run has another method, or is on other data, with other shares or shares that these data
                cannot be dealt out in, or a network that this machine builds differently.
            DataError: If the data are unknown, missing or unreadable.
        """
        if spec.method not in self.methods:
            raise WrongSpec(
                "method", got=spec.method, wanted=" or ".join(self.methods), where="the run's spec"
            )
        plan = spec.data
        if self.dataset is not None and self.dataset != plan.dataset:
            raise WrongSpec("data set", got=self.dataset, wanted=plan.dataset, where="the run's spec")
        if self.num_slots is not None and self.num_slots != plan.num_slots:
            raise WrongSpec("shares", got=self.num_slots, wanted=plan.num_slots, where="the run's spec")
        if self.dataset is None and is_installed(
            plan.dataset
        ):  # the other end alone must not choose what runs here
            wanted = "the same name as the client's own --dataset"
            raise WrongSpec("data set from installed code", got=plan.dataset, wanted=wanted)
        check_model(spec.model, self.model)
        data = _load(plan.dataset, self.data_dir)
        if (
            data.images.shape[1:] != spec.model.input.shape
            or data.class_names != spec.model.input.class_names
        ):
            raise WrongSpec(
                "images and classes of the data set",
                got=(data.images.shape[1:], data.class_names),
                wanted=(spec.model.input.shape, spec.model.input.class_names),
                where=plan.dataset,
            )
        mine = _shards(plan, self.data_dir, spec.model.seed)[slot]
        _LOG.info("slot %d has %d of the %d images of %s", slot, len(mine), len(data.labels), data.name)
        images = spec.model.input.normalise(data.images[mine])
        device = choose_device(self.device)
        return local_trainer(spec, images, data.labels[mine], slot, device, self.clock, self.half)


@lru_cache(maxsize=1)
def _load(name: str, data_dir: Path | None) -> Dataset:
    """The clients of a simulation share one copy."""
    return load(name, data_dir, "train")


@lru_cache(maxsize=1)
def _shards(plan: DataPlan, data_dir: Path | None, seed: int) -> list[NDArray[np.int64]]:
    labels = _load(plan.dataset, data_dir).labels
    if (plan.num_images or 0) > len(labels):
        raise WrongSpec(
            "training images", got=plan.num_images, wanted=f"at most {len(labels)}", where=plan.dataset
        )
    try:
        return shards(Partition.parse(plan.partition), labels[: plan.num_images], plan.num_slots, seed)
    except DataError as error:
        # The data are as they are: it is the run that asks too much of them.
        raise WrongSpec(f"shares of {plan.dataset}: {error}") from error
