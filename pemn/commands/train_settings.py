"""What a person can set of `pemn train`: flags, environment (`PEMN_TRAIN_...`) and TOML file alike."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from pemn.distribution import Distribution
from pemn.errors import ConfigError
from pemn.training.models import WeightInit
from pemn.training.recipes import Recipe, paper_recipe
from pemn.training.rules import Rules

DENSE = "dense"
"""The strategy that masks nothing: ordinary training of all weights, to compare with."""

PLAIN = Recipe(
    optimizer="adam",
    learning_rate=0.01,
    schedule="cosine",
    weight_decay=0.0,
    batch_size=128,
    epochs=20,
    augmentation="none",
)
"""Of no paper: what trains scores of small networks in minutes."""

Positive = Annotated[int, Field(ge=1)]


class TrainSettings(BaseSettings):
    """Trains a masked network on one machine and leaves a .pemn file."""

    model: str = Field(default="mlp-256-256", description="network, such as convmixer-6-256 or PKG:FACTORY")
    strategy: str = Field(
        default="rp:1e-2",
        description="dense (nothing is masked), full, one-layer, mp or rp:RATIO",
    )
    scores: str = Field(
        default="topk:0.5", description="how scores become masks: topk:K (kept), threshold, bernoulli"
    )
    values: Literal["signed", "uniform", "normal"] = Field(
        default="normal", description="distribution of the frozen weights"
    )
    gain: float = Field(
        default=math.sqrt(2), gt=0, description="standard deviation of the frozen weights, times sqrt(fan_in)"
    )
    rescale: bool = Field(
        default=False,
        description="scale each layer by its own fan_in, not by that of the prototype's layer; "
        "for networks without norms",
    )
    dense_layers: str | None = Field(
        default=None, description="comma-separated patterns of tensors to leave as floats, such as head.*"
    )
    dataset: str = Field(default="digits", description="data set: digits, cifar10, cifar100, folder[:SIZE]")
    data_dir: Path | None = Field(default=None, description="folder with the data set's files")
    num_images: Positive | None = Field(
        default=None, description="training images to use, drawn by the seed; all if not given"
    )
    validation: float = Field(
        default=0.1, ge=0, lt=1, description="share of the training images that is held out; 0: none"
    )
    preset: Literal["plain", "paper"] = Field(
        default="plain", description="recipe that the options below change; paper: the network's in PEMN"
    )
    optimizer: Literal["adamw", "adam", "sgd"] | None = Field(default=None, description="optimizer")
    learning_rate: float | None = Field(default=None, gt=0, description="peak of the schedule")
    schedule: Literal["triangular", "cosine", "steps", "constant"] | None = Field(
        default=None, description="how the learning rate goes"
    )
    weight_decay: float | None = Field(default=None, ge=0, description="of all that trains")
    batch_size: Positive | None = Field(default=None, description="images a step")
    epochs: Positive | None = Field(default=None, description="passes over the training images")
    augmentation: Literal["paper-convmixer", "paper-vit", "light", "none"] | None = Field(
        default=None, description="augmentation of the training images"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 64, description="64-bit seed of everything")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to train")
    half: bool = Field(default=False, description="half precision in the forward pass (autocast)")
    threads: Positive | None = Field(default=None, description="torch threads; all cores if not given")
    run_dir: Path = Field(description="folder for checkpoints and results")
    resume: bool = Field(default=False, description="go on from the folder's checkpoint, bit for bit")

    @property
    def recipe(self) -> Recipe:
        """The preset with what has been set.

        Raises:
            ConfigError: If the paper has none for the network, or a value is out of range.
        """
        base = paper_recipe(self.model) if self.preset == "paper" else PLAIN
        names = [
            "optimizer",
            "learning_rate",
            "schedule",
            "weight_decay",
            "batch_size",
            "epochs",
            "augmentation",
        ]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if given.get("optimizer") == "sgd" and base.optimizer != "sgd":
            given["momentum"] = 0.9
        return replace(base, **given)

    @property
    def init(self) -> WeightInit:
        """How the frozen weights are drawn."""
        return WeightInit(Distribution(self.values), self.gain, self.rescale)

    @property
    def rules(self) -> Rules:
        """What is masked."""
        patterns = [pattern.strip() for pattern in (self.dense_layers or "").split(",")]
        return Rules(dense=tuple(filter(None, patterns)))

    def identity(self) -> dict[str, Any]:
        """Returns what decides the result, as JSON has it; a run that is resumed must agree in all of it."""
        free = {"run_dir", "resume", "data_dir", "device", "threads"}
        return self.model_dump(mode="json", exclude=free)

    def check_resumable(self, identity: dict[str, Any]) -> None:
        """Checks that these settings go on with a run.

        Raises:
            ConfigError: If one that decides the result is another.
        """
        for name, wanted in identity.items():
            got = self.identity().get(name)
            if got != wanted:
                flag = "--" + name.replace("_", "-")
                raise ConfigError("resuming with another option", got=got, wanted=wanted, where=flag)
