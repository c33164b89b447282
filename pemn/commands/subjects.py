"""What `pemn train`, `pemn baseline` and `pemn figures` train: an ordinary network, a masked one, or a pruned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

import pemn
from pemn.artifact import sizes_in_file
from pemn.commands.train_settings import BaselineSettings, RunSettings, TrainSettings, parse_strategy
from pemn.errors import ConfigError
from pemn.export.packed import packed
from pemn.export.skeleton import skeleton
from pemn.packaging import check_floats, package
from pemn.spec import InputContract, ModelSpec
from pemn.training.masked import mask_model
from pemn.training.models import describe
from pemn.training.pruned import FLOAT_BYTES, How, Positions, num_kept, position_bytes, prune_model
from pemn.training.rules import Plan, plan
from pemn.training.scores import ScoreRule


@dataclass
class Results:
    """What came of a subject.

    Attributes:
        files: Contents by name.
        facts: What the summary says; `bytes` has what its parts take.
    """

    files: dict[str, bytes]
    facts: dict[str, Any]


class Subject(Protocol):
    """A way of making a network small."""

    def prepare(self, module: nn.Module) -> str:
        """Changes a module before it is trained, in place; returns what it is now, for people.

        Raises:
            PemnError: If it cannot be done, or what it would leave behind cannot be written.
        """
        ...

    def results(self, module: nn.Module, facts: dict[str, str]) -> Results:
        """Returns what a trained module is, with texts for people to keep in its file."""
        ...


class Dense:
    """All weights train and are floats."""

    def prepare(self, module: nn.Module) -> str:
        """Changes nothing."""
        return f"{_num_floating(module):,} floats, nothing masked"

    def results(self, module: nn.Module, facts: dict[str, str]) -> Results:
        """Returns what it takes."""
        num_bytes = FLOAT_BYTES * _num_floating(module)
        return Results({}, _sizes({"floats": num_bytes}, num_bytes) | {"num_floats": _num_floating(module)})


@dataclass
class Masked:
    """Frozen weights from a seed, and scores that decide which are kept.

    Attributes:
        spec: The network.
        rule: How scores become masks.
    """

    spec: ModelSpec
    rule: ScoreRule

    def prepare(self, module: nn.Module) -> str:
        """Masks it. What its file would fail with comes out first: it is not trained for hours in vain."""
        check_floats(module, self.spec)
        skeleton(
            module, self.spec
        )  # training may change what is constant in the graph, so it is made again then
        mask_model(module, self.spec, self.rule)
        return (
            f"{self.spec.strategy}: {self.spec.num_params:,} masked weights from "
            f"{self.spec.unique_values:,} values, {self.spec.num_floats:,} floats"
        )

    def results(self, module: nn.Module, facts: dict[str, str]) -> Results:
        """Returns the .pemn file and the packed ONNX file."""
        artifact = package(module, self.spec, facts)
        files = {"model.pemn": artifact.to_bytes(), "model.onnx": packed(artifact)}
        float32_bytes = FLOAT_BYTES * (self.spec.num_params + self.spec.num_floats)
        sizes = {name: len(data) for name, data in files.items()}
        return Results(
            files,
            {
                **_sizes(sizes, float32_bytes, total=sizes["model.pemn"]),
                "graph_bytes": sizes_in_file(files["model.pemn"])["onnx_skeleton"],
                "num_masked": self.spec.num_params,
                "num_floats": self.spec.num_floats,
                "unique_values": self.spec.unique_values,
                "density": artifact.values_mask().density,
                "weight_compression_ratio": self.spec.paper_compression_ratio,
                "weights_sha256": artifact.weights_sha256.hex(),
            },
        )


@dataclass
class Pruned:
    """Weights that are pruned before training, to a given size.

    Attributes:
        how: Which go.
        positions: What says which are left.
        seed: Of the run.
        plan: What is prunable, and the rest.
        kept: How many are to be left; each layer keeps one at least.
    """

    how: How
    positions: Positions
    seed: int
    plan: Plan
    kept: int

    def prepare(self, module: nn.Module) -> str:
        """Prunes it."""
        self.kept = prune_model(module, self.plan, self.kept, self.how, self.seed)
        parts = self._parts()
        rule = "the seed" if self.positions == "seed" else "a bit a weight"
        return (
            f"{self.how}: {self.kept:,} of {self._num_prunable:,} weights left. "
            f"Size: {parts['weights']:,} bytes of weights, 4 each, {parts['positions']:,} bytes that say which "
            f"({rule}), {parts['floats']:,} bytes of other floats, {sum(parts.values()):,} in all; "
            f"{self._weight_compression_ratio:.2f} % saved of the prunable weights"
        )

    def results(self, module: nn.Module, facts: dict[str, str]) -> Results:
        """Returns what it takes."""
        num_floats = self._parts()["floats"] // FLOAT_BYTES
        return Results(
            {},
            {
                **_sizes(self._parts(), FLOAT_BYTES * (self._num_prunable + num_floats)),
                "num_prunable": self._num_prunable,
                "num_kept": self.kept,
                "num_floats": num_floats,
                "density": self.kept / self._num_prunable,
                "weight_compression_ratio": self._weight_compression_ratio,
            },
        )

    @property
    def _num_prunable(self) -> int:
        return sum(tensor.size for tensor in self.plan.masked)

    @property
    def _weight_compression_ratio(self) -> float:
        parts = self._parts()
        return 100 * (1 - (parts["weights"] + parts["positions"]) / (FLOAT_BYTES * self._num_prunable))

    def _parts(self) -> dict[str, int]:
        return {
            "weights": FLOAT_BYTES * self.kept,
            "positions": position_bytes(self.positions, self._num_prunable),
            "floats": FLOAT_BYTES * sum(tensor.size for tensor in self.plan.floats),
        }


def subject_of(settings: RunSettings, contract: InputContract, module: nn.Module) -> Subject:
    """Returns what a run's settings ask for.

    Args:
        settings: Of the run.
        contract: What the network is fed.
        module: The network as it is built.

    Raises:
        ConfigError: If the network cannot be made so.
    """
    if isinstance(settings, BaselineSettings):
        return _pruned(settings, plan(module, settings.rules))
    assert isinstance(settings, TrainSettings)
    strategy = parse_strategy(settings.strategy)
    if strategy is None:
        return Dense()
    spec = describe(module, settings.model, contract, settings.seed, strategy, settings.init, settings.rules)
    return Masked(spec, ScoreRule.parse(settings.scores))


def _pruned(settings: BaselineSettings, found: Plan) -> Pruned:
    total = sum(tensor.size for tensor in found.masked)
    if (settings.compression_ratio is None) == (settings.size is None):
        raise ConfigError("size of a pruned network", wanted="--compression-ratio or --size, one of them")
    if settings.size is not None:
        num_bytes = float(settings.size - FLOAT_BYTES * sum(tensor.size for tensor in found.floats))
    else:
        num_bytes = FLOAT_BYTES * total * (1 - (settings.compression_ratio or 0) / 100)
    if num_bytes >= FLOAT_BYTES * total:
        got = f"{settings.size:,} bytes" if settings.size else f"{settings.compression_ratio} %"
        wanted = f"less than the {FLOAT_BYTES * total:,} bytes of weights"
        raise ConfigError("a pruned network as large as the whole", got=got, wanted=wanted)
    kept = num_kept(num_bytes, settings.positions, total)
    return Pruned(settings.how, settings.positions, settings.seed, found, kept)


def provenance(settings: RunSettings, num_epochs: int) -> dict[str, str]:
    """Returns the texts that a run's model file keeps."""
    texts = {"pemn": pemn.__version__, "dataset": settings.dataset, "epochs": str(num_epochs)}
    return texts | ({"scores": settings.scores} if isinstance(settings, TrainSettings) else {})


def _num_floating(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.state_dict().values() if tensor.is_floating_point())


def _sizes(parts: dict[str, int], float32_bytes: int, total: int | None = None) -> dict[str, Any]:
    total = sum(parts.values()) if total is None else total
    return {
        "bytes": parts,
        "total_bytes": total,
        "float32_bytes": float32_bytes,
        "compression_ratio": 100 * (1 - total / float32_bytes),
    }
