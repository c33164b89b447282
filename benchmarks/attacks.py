"""Clients that vote against the others, simulated, with and without each defence: the accuracy that is left.

An attacker knows what every client knows. `random` sends flips at random; `inverse` trains as it should and then says
the opposite as strongly as a vote can; `boundary` does so on the fifth of the weights whose shared probability is next
to 1/2, where the least is enough, and is honest elsewhere (in the manner of the attacks on votes of arXiv 2110.04350,
2503.08976).
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pemn.federation.defence import Defence
from pemn.federation.levels import HALF, HIGHEST, LOWEST
from pemn.files import write_atomic
from pemn.methods import Trainer
from pemn.training.device import set_threads
from pemn.wire.messages import Metrics
from pemn.wire.spec import Spec
from pemn_client.trainer import TrainerFactory
from pemn_server.flower import Fleet, run_server_app
from pemn_server.log import Log
from pemn_server.plan import make_plan
from pemn_server.progress import Progress
from pemn_server.record import Record
from pemn_server.run import Federation
from pemn_server.settings import SimulateSettings
from pemn_server.simulation import Clients, InProcessGrid

Probabilities: TypeAlias = NDArray[np.uint16]
COLUMNS = ("dataset", "partition", "attack", "attackers", "defence", "seed", "accuracy", "left_out")
_EDGE = 0.2


def opposite(start: Probabilities, trained: Probabilities) -> Probabilities:
    """Returns the strongest vote against what was trained."""
    against = np.where(trained > start, np.uint16(LOWEST), np.uint16(HIGHEST))
    return np.where(trained == start, start, against)


def at_the_edge(start: Probabilities, trained: Probabilities) -> Probabilities:
    """Returns the same where the least is enough to change a weight's bit, and what was trained elsewhere."""
    distance = np.abs(start.astype(np.int32) - HALF)
    edge = distance <= np.quantile(distance, _EDGE)
    return np.where(edge, opposite(start, trained), trained)


ATTACKS: dict[str, Callable[[Probabilities, Probabilities], Probabilities]] = {
    "inverse": opposite,
    "boundary": at_the_edge,
}


class Attacker:
    """A trainer that returns something else than what it has trained.

    Args:
        honest: What it would be.
        attack: `random`, or one of `ATTACKS`.
        slot: Which client it is.
    """

    def __init__(self, honest: Trainer, attack: str, slot: int) -> None:
        self._honest, self._attack, self._slot = honest, attack, slot

    def train(self, start: Probabilities, round_: int) -> tuple[Probabilities, Metrics]:
        """See `Trainer`."""
        if self._attack == "random":
            draw = np.random.default_rng([self._slot, round_])
            return draw.integers(LOWEST, HIGHEST + 1, start.size).astype(np.uint16), Metrics(100, 2000, 0)
        trained, metrics = self._honest.train(start, round_)
        return ATTACKS[self._attack](start, trained), metrics


class _Left(Progress):
    """Counts how many votes are said to be left out."""

    num_votes = 0

    def warn(self, text: str) -> None:
        self.num_votes += text.count(",") if "left out" in text else 0


def run(settings: SimulateSettings, attack: str, num_attackers: int) -> tuple[float, int]:
    """Returns the accuracy after a run with some attackers, and how many votes were left out."""
    plan = make_plan(settings)
    factory = TrainerFactory(settings.dataset, settings.data_dir, clock=lambda: 0.0, half=settings.half)

    def make_trainer(spec: Spec, slot: int) -> Any:
        honest = factory(spec, slot)
        return Attacker(honest, attack, slot) if slot < num_attackers else honest

    grid = InProcessGrid(Clients(make_trainer, settings.num_slots), estimate=True)
    accuracies, progress = list[float](), _Left(Log(Console(file=io.StringIO())))

    def run_rounds(fleet: Fleet) -> None:
        federation = Federation(
            plan.spec,
            fleet,
            num_rounds=settings.rounds,
            defence=Defence(settings.defence),
            min_clients=1,
            round_timeout_s=None,
            wait_timeout_s=None,
            accuracy=plan.accuracy,
            progress=progress,
            record=Record(),
        )
        accuracies.append(federation.run().accuracies[-1])

    run_server_app(grid, run_rounds)
    return accuracies[0], progress.num_votes


def main() -> None:
    """Runs what is missing in the table, one run after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--dataset", default="digits", help="(default: %(default)s)")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--images", type=int, help="the first so many (default: all)")
    parser.add_argument("--partition", default="iid", help="(default: %(default)s)")
    parser.add_argument("--model", default="mlp-256-256", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="clients train in bfloat16")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: %(default)s)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.2], help="of 10 clients")
    parser.add_argument(
        "--output", type=Path, required=True, help="CSV file; rows that are there are not run again"
    )
    args = parser.parse_args()
    set_threads(1, num_processes=1)
    rows: list[dict[str, str]] = []
    if args.output.exists():
        rows = list(csv.DictReader(args.output.read_text().splitlines()))
    cases = [
        ("none", 0),
        *((a, math.ceil(10 * s)) for a in ("random", "inverse", "boundary") for s in args.shares),
    ]
    for seed in args.seeds:
        for attack, attackers in cases:
            for defence in Defence:
                key = (args.dataset, args.partition, attack, str(attackers), str(defence), str(seed))
                if any(tuple(row.values())[:6] == key for row in rows):
                    continue
                settings = SimulateSettings(
                    dataset=args.dataset,
                    data_dir=args.data_dir,
                    images=args.images,
                    partition=args.partition,
                    model=args.model,
                    rounds=args.rounds,
                    batch_size=args.batch_size,
                    half=args.half,
                    seed=seed,
                    threads=1,
                    defence=defence.value,
                )
                accuracy, left_out = run(settings, attack, attackers)
                rows.append(dict(zip(COLUMNS, (*key, f"{accuracy:.4f}", str(left_out)), strict=True)))
                print(*rows[-1].values(), flush=True)
                table = io.StringIO()
                writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
                write_atomic(args.output, table.getvalue().encode())


if __name__ == "__main__":
    main()
