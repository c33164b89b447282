"""Local training of several clients: as one batch (`pemn.training.cohort`) beside one after another, on this device.

Clients have random images shaped as CIFAR-10's, all as many, and train one round from the same start. Speeds are
client-rounds a second of wall-clock time: on a GPU most of the work is not the processor's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Case, measure, write_result
from pemn.prototype import Strategy
from pemn.schedule import Schedule
from pemn.spec import InputContract, ModelSpec, to_float32
from pemn.training.cohort import check_cohort, train_cohort
from pemn.training.device import choose_device
from pemn.training.local import DrawnTrainer, LocalTrainer, MaskTrainer, WeightTrainer
from pemn.training.models import model_spec
from pemn.wire.spec import LocalTraining

METHODS = ("mask", "fedpm", "fedavg")
_SHAPE, _CLASSES = (3, 32, 32), 10
_SEED, _ROUND = 7, 1
_RATES = {"mask": 0.2, "fedpm": 0.1, "fedavg": 0.05}
_MOMENTUM = 0.9
_HEAD = """Client-rounds a second: the median, and the fastest run; a step is one of one client.
| method | clients at once | client-rounds a second | ms a step | times as fast as one after another |
|---|---|---|---|---|"""


def main() -> None:
    """Measures, prints a table and writes the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cohort", description=__doc__)
    parser.add_argument("--model", default="conv-4", help="network (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="(default: all)")
    parser.add_argument("--clients", type=int, default=16, help="clients of a round (default: %(default)s)")
    parser.add_argument("--at-once", type=int, nargs="+", default=(4, 16), help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=256, help="images a client (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="of everything (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    contract = InputContract(_SHAPE, (0.5,) * 3, (0.25,) * 3, tuple(map(str, range(_CLASSES))))
    model = model_spec(args.model, contract, _SEED, Strategy("full"))
    print(f"{args.model}, {model.num_params:,} weights, on {describe(device)}", flush=True)
    timings, rows = {}, []
    print(_HEAD, flush=True)
    for method in args.methods:
        trainers = [
            trainer(
                method,
                model,
                LocalTraining(1, args.batch_size, Schedule.always(to_float32(_RATES[method]))),
                slot,
                args.images,
                device,
            )
            for slot in range(args.clients)
        ]
        check_cohort(trainers[0])
        found = measure(dict(cases(trainers, start(method, model), args.at_once)), args.repetitions)
        for at_once, timing in found.items():
            timings[f"{method}, {at_once} at once"] = timing
            row = {
                "method": method,
                "at_once": at_once,
                "client_rounds_per_s": timing.rate,
                "fastest_client_rounds_per_s": timing.amount / min(timing.seconds),
                "ms_per_step": 1e3 * timing.median_s / (timing.amount * trainers[0].num_steps),
                "times_one_after_another": timing.rate / found["1"].rate,
            }
            rows.append(row)
            print(show(row), flush=True)
    if args.output:
        parameters = {name: value for name, value in vars(args).items() if name != "output"}
        told = {"device": describe(device), "torch": torch.__version__, "num_params": model.num_params}
        write_result(args.output, "benchmarks.cohort", parameters, timings, **told, rows=rows)


def describe(device: torch.device) -> str:
    """Returns what is trained on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"


def trainer(
    method: str, model: ModelSpec, training: LocalTraining, slot: int, num_images: int, device: torch.device
) -> LocalTrainer:
    """Returns a client's trainer, with random images."""
    draw = np.random.default_rng(slot)
    images = draw.standard_normal((num_images, *_SHAPE), np.float32)
    args = (model, training, images, draw.integers(0, _CLASSES, num_images), slot, device)
    if method == "fedavg":
        return WeightTrainer(_MOMENTUM, *args)
    return MaskTrainer(*args) if method == "mask" else DrawnTrainer(*args)


def start(method: str, model: ModelSpec) -> NDArray[Any]:
    """Returns what all clients start from."""
    draw = np.random.default_rng(_SEED)
    if method == "fedavg":
        return draw.normal(0, 0.02, model.num_params).astype(np.float32)
    p = draw.uniform(0.1, 0.9, model.num_params)
    return (65_536 * p).astype(np.uint16) if method == "mask" else p.astype(np.float32)


def cases(trainers: list[LocalTrainer], begin: NDArray[Any], sizes: list[int]) -> Iterator[tuple[str, Case]]:
    """Yields a round of all clients, so many at once; 1 is one after another."""
    for size in sorted({1, *sizes}):

        def run(size: int = size) -> None:
            for first in range(0, len(trainers), size):
                train_cohort(trainers[first : first + size], begin, _ROUND)

        yield str(size), Case(run, len(trainers), "client_rounds")


def show(row: dict[str, Any]) -> str:
    """Returns a row as a line of a Markdown table."""
    speed = f"{row['client_rounds_per_s']:.2f}, {row['fastest_client_rounds_per_s']:.2f}"
    ratio = f"{row['times_one_after_another']:.2f}"
    return f"| {row['method']} | {row['at_once']} | {speed} | {row['ms_per_step']:.2f} | {ratio} |"


if __name__ == "__main__":
    main()
