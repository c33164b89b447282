"""What a person can set of `pemn train`, `baseline` and `figures`: flags, environment and TOML file alike."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from pemn.config import check_unchanged
from pemn.distribution import Distribution
from pemn.errors import ConfigError
from pemn.prototype import Strategy
from pemn.training.models import WeightInit
from pemn.training.recipes import Recipe, paper_recipe
from pemn.training.rules import Rules
from pemn.training.scores import ScoreRule

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


def parse_strategy(text: str) -> Strategy | None:
    """Returns a strategy, or None for `dense`.

    Raises:
        ConfigError: If there is no such strategy.
    """
    if text == DENSE:
        return None
    try:
        return Strategy.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{error}, or {DENSE}") from error


Positive = Annotated[int, Field(ge=1)]


class RunSettings(BaseSettings):
    """What every run of central training has."""

    model: str = Field(default="mlp-256-256", description="network, such as convmixer-6-256 or PKG:FACTORY")
    dense_layers: str | None = Field(
        default=None, description="comma-separated patterns of tensors to leave as floats, such as head.*"
    )
    masked_layers: str | None = Field(
        default=None,
        description="comma-separated patterns of tensors to mask or prune as well, such as *.bias",
    )
    dataset: str = Field(
        default="digits", description="data set: digits, cifar10, cifar100, folder[:SIZE] or PKG:FUNCTION"
    )
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
    half: bool = Field(
        default=False,
        description="half precision in the forward pass (autocast); on CUDA --preset paper has it, as published",
    )
    threads: Positive | None = Field(default=None, description="torch threads; all cores if not given")
    run_dir: Path = Field(description="folder for checkpoints and results")
    resume: bool = Field(default=False, description="go on from the folder's checkpoint, bit for bit")

    @field_validator("run_dir", mode="before")
    @classmethod
    def _check_run_dir(cls, value: object) -> object:
        if value == "":  # an empty variable of a shell; pathlib takes it for the folder that one is in
            raise ConfigError("empty name of a folder", wanted="a folder for the run", where="--run-dir")
        return value

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

    def in_half(self, device_type: str) -> bool:
        """Returns whether the forward pass runs in half precision on a kind of device."""
        return self.half or (self.preset == "paper" and device_type == "cuda")

    @property
    def rules(self) -> Rules:
        """What is masked."""
        return Rules(dense=tuple(_listed(self.dense_layers)), masked=tuple(_listed(self.masked_layers)))

    def identity(self) -> dict[str, Any]:
        """Returns what decides the result, as JSON has it; a run that is resumed must agree in all of it."""
        free = {"run_dir", "resume", "data_dir", "device", "threads"}
        return {"kind": type(self).__name__, **self.model_dump(mode="json", exclude=free)}


def check_resumable(identity: dict[str, Any], here: dict[str, Any]) -> None:
    """Checks that a run goes on with what decides its result.

    Args:
        identity: What it was begun with; see `RunSettings.identity`.
        here: What it is to go on with.

    Raises:
        ConfigError: If that is something else.
    """
    kinds = {"TrainSettings": "pemn train", "BaselineSettings": "pemn baseline"}
    if identity["kind"] != here["kind"]:
        got, wanted = kinds.get(here["kind"]), kinds.get(identity["kind"])
        raise ConfigError("resuming another kind of run", got=got, wanted=wanted)
    check_unchanged(identity, here, _NAMES)


_NAMES = {"images_sha256": "the training images", "device_type": "--device"}


class MaskingSettings(RunSettings):
    """How a network is masked, whatever its strategy."""

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

    @property
    def init(self) -> WeightInit:
        """How the frozen weights are drawn."""
        return WeightInit(Distribution(self.values), self.gain, self.rescale)


class TrainSettings(MaskingSettings):
    """Trains a masked network on one machine and leaves a .pemn file."""

    def identity(self) -> dict[str, Any]:
        """Returns what decides the result, each value in one spelling."""
        strategy = str(parse_strategy(self.strategy) or DENSE)
        return {**super().identity(), "strategy": strategy, "scores": str(ScoreRule.parse(self.scores))}

    strategy: str = Field(
        default="rp:1e-2",
        description="dense (nothing is masked), full, one-layer, mp or rp:RATIO",
    )


class BaselineSettings(RunSettings):
    """Prunes a network before training to a given size and trains what is left: what PEMN is compared with."""

    how: Literal["random", "magnitude"] = Field(
        default="random", description="what goes: random weights, or the smallest initial ones of each layer"
    )
    compression_ratio: float | None = Field(
        default=None, gt=0, lt=100, description="percent saved of the prunable float32 weights, such as 96"
    )
    size: Positive | None = Field(
        default=None, description="instead: bytes of the whole network, floats included"
    )
    positions: Literal["seed", "bitmap"] = Field(
        default="seed",
        description="what says which weights are left: the seed, 8 bytes, as what is pruned follows from it; "
        "or a bit a weight",
    )


Cell = TypeVar("Cell", TrainSettings, BaselineSettings)


class FiguresSettings(MaskingSettings):
    """Trains every strategy and both baselines, and draws the paper's two figures."""

    strategies: str = Field(
        default="dense,full,one-layer,mp,rp:1e-1,rp:1e-2,rp:1e-3,rp:1e-4,rp:1e-5",
        description="comma-separated strategies",
    )
    baselines: str = Field(
        default="random,magnitude", description="comma-separated kinds of pruning; may be empty"
    )
    ratios: str = Field(default="90,92,94,96", description="percent saved by the baselines, comma-separated")
    positions: Literal["seed", "bitmap"] = Field(
        default="seed", description="what says which weights the baselines keep; see pemn baseline"
    )
    num_seeds: Positive = Field(default=3, description="runs of each, with seeds from --seed on")
    jobs: Positive = Field(
        default=1, description="runs at the same time, each a process with --threads threads"
    )
    published: str | None = Field(
        default=None,
        description="network whose published points are drawn beside; by default the family's first",
    )

    def cells(self) -> list[TrainSettings | BaselineSettings]:
        """Returns the settings of every run, each with a folder of its own within `run_dir`.

        Raises:
            ConfigError: If a strategy, baseline or ratio is none.
        """
        if self.seed + self.num_seeds > 1 << 64:
            raise ConfigError(
                "last seed", got=self.seed + self.num_seeds - 1, wanted="below 2^64", where="--seed"
            )
        found: list[TrainSettings | BaselineSettings] = []
        for seed in range(self.seed, self.seed + self.num_seeds):
            for strategy in _listed(self.strategies):
                name = str(parse_strategy(strategy) or DENSE)
                found.append(self._cell(TrainSettings, name, seed, strategy=name))
            for how in _listed(self.baselines):
                if how not in ("random", "magnitude"):
                    raise ConfigError("baseline", got=how, wanted="random or magnitude", where="--baselines")
                for ratio in map(_percent, _listed(self.ratios)):
                    name = f"{how}-{ratio!r}"
                    found.append(self._cell(BaselineSettings, name, seed, how=how, compression_ratio=ratio))
        if not found:
            raise ConfigError("nothing to train", wanted="--strategies or --baselines")
        folders = [cell.run_dir.name for cell in found]
        if twice := sorted({name for name in folders if folders.count(name) > 1}):
            raise ConfigError("the same run twice", got=twice[0])
        return found

    def _cell(self, kind: type[Cell], name: str, seed: int, **values: Any) -> Cell:
        common = {
            field: getattr(self, field) for field in kind.model_fields if field in type(self).model_fields
        }
        common |= {"seed": seed, "run_dir": self.run_dir / "runs" / f"{name.replace(':', '-')}_{seed}"}
        return kind.model_construct(
            **{**common, **values}
        )  # checked already, and not looked for in the environment


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 100:
        raise ConfigError("compression ratio", got=text, wanted="above 0, below 100", where="--ratios")
    return value
