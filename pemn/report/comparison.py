"""Runs side by side: those that differ in their seeds alone are one row, those that could be compared one setting."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeVar

from pemn.errors import ConfigError
from pemn.report.costs import Costs, sum_by
from pemn.report.schema import check_ledger, check_summary

REFERENCE_METHOD = "fedavg"
"""What the others are compared with, where it is there."""

TARGET_BELOW_REFERENCE = 0.02
"""By default the accuracy to reach is the reference's final one less two points."""

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What runs must have in common to be compared.

    Attributes:
        dataset: By name.
        num_images: Of its training images that were dealt out; None: all.
        partition: How.
        num_clients: To how many clients.
        client_rounds: How many of them a round has had, on average.
        num_rounds: How many rounds.
        epochs: Passes of a client over its data in a round.
    """

    dataset: str
    num_images: int | None
    partition: str
    num_clients: int
    client_rounds: float
    num_rounds: int
    epochs: int

    def __str__(self) -> str:
        """Returns a line for a person."""
        asked = f"{self.client_rounds:g} of {self.num_clients}"
        clients = f"{self.num_clients:,}" if self.client_rounds == self.num_clients else asked
        images = "" if self.num_images is None else f" ({self.num_images:,} images)"
        return (
            f"{self.dataset}{images}, {self.partition}, {clients} clients a round, "
            f"{self.num_rounds} x {self.epochs}"
        )


@dataclass(frozen=True)
class Run:
    """A run, as its folder tells of it.

    Attributes:
        summary: Contents of `summary.json`.
        rounds: What each round cost; 0 is joining, the one after the last training round the final broadcast.
    """

    summary: Mapping[str, Any]
    rounds: Mapping[int, Costs]

    @classmethod
    def of(cls, summary: Mapping[str, Any], ledger: Sequence[Mapping[str, Any]]) -> Run:
        """Returns the run of a summary and the lines of its ledger.

        Raises:
            FileError: If one of them is not as its schema says.
        """
        check_summary(summary)
        check_ledger(ledger)
        return cls(summary, sum_by(ledger, "round"))

    @property
    def setting(self) -> Setting:
        """What it can be compared in."""
        of = self.summary
        return Setting(
            dataset=of["dataset"],
            num_images=of["num_images"],
            partition=of["partition"],
            num_clients=of["num_clients"],
            client_rounds=round(of["client_rounds"] / of["num_rounds"], 2),
            num_rounds=of["num_rounds"],
            epochs=of["epochs"],
        )

    @property
    def accuracies(self) -> list[float]:
        """On the test split, 0 .. 1; the first is that of round 1."""
        return list(self.summary["accuracy_by_round"])

    @property
    def accuracy(self) -> float:
        """Of the model that the run leaves, 0 .. 1."""
        return float(self.summary["accuracy"])

    @property
    def num_bytes(self) -> int:
        """All that was moved, both ways, joining and the final broadcast included."""
        return sum(costs.moved for costs in self.rounds.values())

    @property
    def model_bytes(self) -> int:
        """The smallest file of the final model."""
        sizes: dict[str, int | None] = self.summary["model_bytes"]
        return min(size for size in sizes.values() if size is not None)

    @cached_property
    def so_far(self) -> list[int]:
        """Bytes moved until the end of each training round; the first is that of round 1."""
        moved = dict(zip(self.rounds, accumulate(costs.moved for costs in self.rounds.values()), strict=True))
        return [moved[round_] for round_ in range(1, len(self.accuracies) + 1)]

    def bits(self, direction: str) -> list[float]:
        """Returns the bits a weight and client of each training round; the first is that of round 1.

        Args:
            direction: `up` or `down`.
        """
        each = 8 / (self.summary["num_params"] * self.setting.client_rounds)
        costs = [self.rounds[round_] for round_ in range(1, len(self.accuracies) + 1)]
        return [each * (cost.up if direction == "up" else cost.down).moved for cost in costs]

    def mean_bits(self, direction: str) -> float:
        """Returns the bits a weight and client-round of the whole run, joining and final broadcast included."""
        moved = sum((costs.up if direction == "up" else costs.down).moved for costs in self.rounds.values())
        weights: int = self.summary["num_params"] * self.summary["client_rounds"]
        return 8 * moved / weights

    def bytes_to(self, target: float) -> int | None:
        """Returns the bytes moved until a round first had an accuracy; None if none had."""
        reached = (so_far for so_far, got in zip(self.so_far, self.accuracies, strict=True) if got >= target)
        return next(reached, None)


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seeds alone.

    Attributes:
        label: What they are called.
        model: Their network.
        runs: At least one, by ascending seed.
    """

    label: str
    model: str
    runs: tuple[Run, ...]

    @property
    def method(self) -> str:
        """What clients and server did."""
        return str(self.runs[0].summary["method"])

    @property
    def accuracy(self) -> float:
        """Mean of the final accuracies, 0 .. 1."""
        return statistics.fmean(run.accuracy for run in self.runs)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the final accuracies; None of one run."""
        return statistics.stdev(run.accuracy for run in self.runs) if len(self.runs) > 1 else None

    @property
    def num_bytes(self) -> float:
        """Mean of the bytes moved."""
        return statistics.fmean(run.num_bytes for run in self.runs)

    @property
    def model_bytes(self) -> float:
        """Mean size of the final model."""
        return statistics.fmean(run.model_bytes for run in self.runs)

    def bits(self, direction: str) -> float:
        """Returns the mean bits a weight and client-round: all that was moved, joining and final broadcast included."""
        return statistics.fmean(run.mean_bits(direction) for run in self.runs)

    def bytes_to(self, target: float) -> float | None:
        """Returns the mean bytes moved to an accuracy; None if a run has not reached it."""
        needed = [run.bytes_to(target) for run in self.runs]
        reached = [num_bytes for num_bytes in needed if num_bytes is not None]
        return statistics.fmean(reached) if len(reached) == len(needed) else None


@dataclass(frozen=True)
class Table:
    """Rows of one setting and network.

    Attributes:
        setting: What they have in common.
        model: Their network.
        rows: As they were given.
        wanted: The accuracy to reach, if it was given.
    """

    setting: Setting
    model: str
    rows: tuple[Row, ...]
    wanted: float | None = None

    @cached_property
    def reference(self) -> Row | None:
        """What the others are compared with."""
        return next((row for row in self.rows if row.method == REFERENCE_METHOD), None)

    @cached_property
    def target(self) -> float:
        """The accuracy to reach; by default the reference's, or else the best, less two points."""
        best = max(row.accuracy for row in self.rows) if self.reference is None else self.reference.accuracy
        return best - TARGET_BELOW_REFERENCE if self.wanted is None else self.wanted

    def times_fewer(self, row: Row) -> float | None:
        """Returns how many times fewer bytes than the reference a row has moved."""
        return None if self.reference is None else self.reference.num_bytes / row.num_bytes

    def times_fewer_to_target(self, row: Row) -> float | None:
        """Returns how many times fewer bytes than the reference a row has moved to the target; None if one has not."""
        ours = row.bytes_to(self.target)
        theirs = None if self.reference is None else self.reference.bytes_to(self.target)
        return None if ours is None or theirs is None else theirs / ours


def tables(runs: Sequence[Run], wanted: float | None = None) -> list[Table]:
    """Returns what can be compared, in the order in which it was given.

    Args:
        runs: Of any settings.
        wanted: The accuracy to reach, 0 .. 1; by default it follows from each table.

    Raises:
        ConfigError: If two runs of a row have one seed.
    """
    found = []
    for setting, of_setting in _by(runs, [run.setting for run in runs]).items():
        models = [str(run.summary["model"]) for run in of_setting]
        for model, of_model in _by(of_setting, models).items():
            labels = [str(run.summary["label"]) for run in of_model]
            rows = [_row(label, model, of_label) for label, of_label in _by(of_model, labels).items()]
            found.append(Table(setting, model, tuple(rows), wanted))
    return found


def _row(label: str, model: str, runs: Sequence[Run]) -> Row:
    seeds = [run.summary["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ConfigError("two runs of one row and seed", got=seeds, wanted="another --label", where=label)
    return Row(label, model, tuple(sorted(runs, key=lambda run: run.summary["seed"])))


K = TypeVar("K")


def _by(items: Sequence[T], keys: Sequence[K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for key, item in zip(keys, items, strict=True):
        groups[key].append(item)
    return groups
