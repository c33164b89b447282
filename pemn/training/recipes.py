"""How a network is trained centrally: the paper's recipes, as far as they are known.

The camera-ready paper, its ViT and its ResNet code were never published. What is known, and what is our choice
because nothing is:

    convmixer  all from the official code: its README's command and its defaults; its mixed precision is `--half` here.
               Epochs and rates for CIFAR-100 are
               not given; ours are the same.
    vit        the supplement gives the rate, the batch size and the epochs, without saying of which network. They are
               the defaults of kentaroy47's `vision-transformers-cifar10`, so the optimizer, the schedule and the
               augmentation are taken from there; that it anneals once an epoch and we at every step is our choice.
    resnet     the supplement gives the weight decay and the momentum. All else is our choice: the rate, its steps, the
               batch size and the epochs of the same first author's DLTH code, with crop and flip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pemn.errors import ConfigError
from pemn.training.augment import PRESETS
from pemn.training.schedules import SCHEDULES

OPTIMIZERS = ("adamw", "adam", "sgd")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; `dataclasses.replace` makes another.

    Weight decay is for all that trains, the scores too, as in the official code.

    Attributes:
        optimizer: One of `OPTIMIZERS`, torch's classes of these names.
        learning_rate: The schedule's peak, > 0.
        schedule: A name in `pemn.training.schedules.SCHEDULES`.
        weight_decay: >= 0; decoupled for adamw, else added to the gradient.
        batch_size: Images a step.
        epochs: Passes over the training images.
        augmentation: A name in `pemn.training.augment.PRESETS`.
        betas: Adam's, 0 .. 1, 1 excluded.
        momentum: SGD's, >= 0.
    """

    optimizer: str
    learning_rate: float
    schedule: str
    weight_decay: float
    batch_size: int
    epochs: int
    augmentation: str
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.0

    def __post_init__(self) -> None:
        """Checks names and ranges."""
        for what, name, names in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("augmentation", self.augmentation, PRESETS),
        ):
            if name not in names:
                raise ConfigError(what, got=name, wanted=", ".join(names))
        for what, number, is_right, wanted in (
            ("learning rate", self.learning_rate, 0 < self.learning_rate < math.inf, "more than 0"),
            ("weight decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more"),
            ("batch size", self.batch_size, self.batch_size >= 1, "1 or more"),
            ("epochs", self.epochs, self.epochs >= 1, "1 or more"),
            ("momentum", self.momentum, 0 <= self.momentum < math.inf, "0 or more"),
            ("first beta", self.betas[0], 0 <= self.betas[0] < 1, "0 .. 1, 1 excluded"),
            ("second beta", self.betas[1], 0 <= self.betas[1] < 1, "0 .. 1, 1 excluded"),
        ):
            if not is_right:
                raise ConfigError(what, got=number, wanted=wanted)

    def learning_rate_at(self, t: float) -> float:
        """Returns the learning rate of a step; see `pemn.training.schedules` for `t`."""
        return SCHEDULES[self.schedule](t, self.epochs, self.learning_rate)


PAPER: dict[str, Recipe] = {
    "convmixer": Recipe(
        optimizer="adamw",
        learning_rate=0.05,
        schedule="triangular",
        weight_decay=0.005,
        batch_size=512,
        epochs=100,
        augmentation="paper-convmixer",
    ),
    "vit": Recipe(
        optimizer="adam",
        learning_rate=1e-4,
        schedule="cosine",
        weight_decay=0.0,
        batch_size=256,
        epochs=200,
        augmentation="paper-vit",
    ),
    "resnet": Recipe(
        optimizer="sgd",
        learning_rate=0.1,
        schedule="steps",
        weight_decay=5e-4,
        momentum=0.9,
        batch_size=128,
        epochs=200,
        augmentation="light",
    ),
}
"""The recipes by a network's family; the module says what of them is the paper's."""


def paper_recipe(architecture: str) -> Recipe:
    """Returns the recipe for a network.

    Args:
        architecture: A network's name, such as `convmixer-6-256`.

    Raises:
        ConfigError: If the paper trains no network of that family.
    """
    family = architecture.split("-", 1)[0]
    if family not in PAPER:
        raise ConfigError(
            "no recipe in the paper", got=architecture, wanted=", ".join(f"{f}-..." for f in PAPER)
        )
    return PAPER[family]
