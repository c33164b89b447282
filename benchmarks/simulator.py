"""What a simulation costs beside the local training: the in-process engine and a bare torch loop that trains the same.

Set up as others have measured it: per client some random 3 x 32 x 32 images, one local epoch of batches of 10, 10
clients a round, all of them; one torch thread. Times are of a client-round, the median over the rounds after the first.
The bare loops are plain torch: an `nn.Module`, an optimizer, and the mean of what was trained; that of `mask` trains
scores straight through with torch's Adam.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks import networks
from benchmarks.measure import Timing, write_result
from pemn.methods import Trainer
from pemn.spec import InputContract
from pemn.training.local import local_trainer
from pemn.training.models import model_spec
from pemn.wire.spec import DataPlan, LocalTraining, Spec
from pemn_server.flower import run_server_app
from pemn_server.log import Log
from pemn_server.methods import choose_method
from pemn_server.outcome import Outcome
from pemn_server.progress import Progress
from pemn_server.record import Record
from pemn_server.run import Federation
from pemn_server.settings import SimulateSettings
from pemn_server.simulation import Clients, InProcessGrid

_SHAPE, _CLASSES, _BATCH = (3, 32, 32), 10, 10
_RATES = {"fedavg": 0.1, "mask": 0.3}
_CPU = torch.device("cpu")

_HEAD = """| | ms a client-round | processor ms | over the bare loop: ms | percent |
|---|---|---|---|---|"""

Seconds = list[tuple[float, float]]
"""Wall-clock and processor time of each round after the first, divided by the number of clients."""


class Clock:
    """Takes the time of rounds."""

    def __init__(self, num_clients: int) -> None:
        self._num_clients, self._marks = num_clients, list[tuple[float, float]]()

    def mark(self) -> None:
        """Notes the end of a round, and before the first its beginning."""
        self._marks.append((time.perf_counter(), time.process_time()))

    def seconds(self) -> Seconds:
        """Returns what each round but the first took, for a client."""
        return [
            ((wall - wall_before) / self._num_clients, (cpu - cpu_before) / self._num_clients)
            for (wall_before, cpu_before), (wall, cpu) in pairwise(self._marks[1:])
        ]


def images_of(slot: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns a client's random images and labels."""
    draw = np.random.default_rng(slot)
    return draw.standard_normal((count, *_SHAPE), np.float32), draw.integers(0, _CLASSES, count)


def bare_fedavg(module: nn.Module, data: list[tuple[Tensor, Tensor]], num_rounds: int, clock: Clock) -> None:
    """Federated averaging as a loop."""
    shared = [weight.detach().clone() for weight in module.parameters()]
    clock.mark()
    for _ in range(num_rounds):
        mean = [torch.zeros_like(weight) for weight in shared]
        for images, labels in data:
            with torch.no_grad():
                for weight, start in zip(module.parameters(), shared, strict=True):
                    weight.copy_(start)
            optimizer = torch.optim.SGD(module.parameters(), lr=_RATES["fedavg"])
            for batch in torch.split(torch.randperm(len(labels)), _BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            with torch.no_grad():
                for total, weight in zip(mean, module.parameters(), strict=True):
                    total.add_(weight, alpha=1 / len(data))
        shared = mean
        clock.mark()


class _Kept(torch.autograd.Function):
    """The mask of scores above 0, with the gradient straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return (scores > 0).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def bare_mask(module: nn.Module, data: list[tuple[Tensor, Tensor]], num_rounds: int, clock: Clock) -> None:
    """Training of scores as a loop; the mean of the probabilities is where the next round starts."""
    frozen = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    shared = {name: torch.randn_like(weight).sigmoid() for name, weight in frozen.items()}
    clock.mark()
    for _ in range(num_rounds):
        mean = {name: torch.zeros_like(p) for name, p in shared.items()}
        for images, labels in data:
            scores = {name: p.logit().requires_grad_() for name, p in shared.items()}
            optimizer = torch.optim.Adam(scores.values(), lr=_RATES["mask"], fused=True)
            for batch in torch.split(torch.randperm(len(labels)), _BATCH):
                optimizer.zero_grad()
                masked = {name: frozen[name] * _Kept.apply(scores[name]) for name in frozen}  # type: ignore[no-untyped-call]
                logits = functional_call(module, masked, (images[batch],))
                nn.functional.cross_entropy(logits, labels[batch]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            with torch.no_grad():
                for name, score in scores.items():
                    mean[name].add_(score.sigmoid(), alpha=1 / len(data))
        shared = mean
        clock.mark()


def engine(
    name: str,
    method: str,
    num_images: int,
    num_rounds: int,
    num_clients: int,
    clock: Clock,
    *,
    estimate: bool,
) -> None:
    """The in-process engine."""
    own: dict[str, object] = {"momentum": 0.0} if method == "fedavg" else {"strategy": "full"}
    options = {"method": method, "learning_rate": _RATES[method], "clients": num_clients, **own}
    settings = SimulateSettings.model_validate(options)
    choice = choose_method(settings)
    contract = InputContract(_SHAPE, (0.5,) * 3, (0.25,) * 3, tuple(map(str, range(_CLASSES))))
    model = model_spec(f"{networks.__name__}:{name}", contract, 7, choice.strategy, choice.init)
    training = LocalTraining(1, _BATCH, choice.learning_rate)
    plan = DataPlan("random", "own", num_clients)
    spec = Spec(1, model, choice.protocol, training, plan, method=method, num_rounds=num_rounds)

    def make_trainer(spec: Spec, slot: int) -> Trainer:
        return local_trainer(spec, *images_of(slot, num_images), slot, _CPU, lambda: 0.0)

    grid = InProcessGrid(Clients(make_trainer, num_clients), estimate=estimate)
    quiet = Progress(Log(Console(file=io.StringIO())))

    def run(fleet: Any) -> None:
        federation = Federation(
            spec,
            fleet,
            num_rounds=num_rounds,
            min_clients=num_clients,
            round_timeout_s=None,
            wait_timeout_s=None,
            accuracy=lambda _: 0.0,
            progress=quiet,
            record=_Marks(clock),
        )
        clock.mark()
        federation.run()

    run_server_app(grid, run)


class _Marks(Record):
    """Takes the time after every round."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def keep_outcome(self, outcome: Outcome) -> None:
        self._clock.mark()


def cases(name: str, args: argparse.Namespace) -> Iterator[tuple[str, str | None, Callable[..., object]]]:
    """Yields name, the name of what it is compared with, and what runs it."""
    module = getattr(networks, name)(_SHAPE, _CLASSES)
    data = [
        (torch.from_numpy(images), torch.from_numpy(labels))
        for images, labels in (images_of(slot, args.images) for slot in range(args.clients))
    ]
    rounds = args.rounds + 1
    for method, loop in (("fedavg", bare_fedavg), ("mask", bare_mask)):
        bare = f"{name}: bare loop, {method}"
        yield bare, None, partial(loop, module, data, num_rounds=rounds)
        if method == "fedavg" and args.pfl:
            yield f"{name}: pfl, {method}", bare, partial(_on_pfl, module, data, rounds)
        of_engine = partial(engine, name, method, args.images, num_rounds=rounds, num_clients=args.clients)
        yield f"{name}: in process, {method}", bare, partial(of_engine, estimate=False)
        if method == "mask":  # the messages of fedavg are of known length
            yield f"{name}: in process, {method}, estimated", bare, partial(of_engine, estimate=True)


def _on_pfl(module: nn.Module, data: list[tuple[Tensor, Tensor]], num_rounds: int, clock: Clock) -> None:
    from benchmarks.pfl_simulator import pfl_fedavg  # others' code, which need not be installed

    pfl_fedavg(module, data, num_rounds, _RATES["fedavg"], _BATCH, clock.mark)


def main() -> None:
    """Measures, prints a table and writes the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=("lenet", "simple_cnn"), help="(default: both)")
    parser.add_argument("--clients", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=50, help="of a client (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="after the first (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="of everything (default: %(default)s)")
    parser.add_argument("--pfl", action="store_true", help="and pfl, if it is installed")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    timings: dict[str, Timing] = {}
    print(_HEAD, flush=True)
    for name in args.networks:
        found: dict[str, Seconds] = {}
        planned = list(cases(name, args))
        for _ in range(args.repetitions):  # in turns, so that what else the machine does is spread over all
            for case, _, run in planned:
                clock = Clock(args.clients)
                run(clock=clock)
                found.setdefault(case, []).extend(clock.seconds())
        for case, bare, _ in planned:
            wall, cpu = zip(*found[case], strict=True)
            timing = timings[case] = Timing(wall, cpu, 1, "client_rounds")
            over = " | "
            if bare is not None:
                extra = timing.cpu_median_s - timings[bare].cpu_median_s
                over = f"{1000 * extra:.2f} | {100 * extra / timings[bare].cpu_median_s:.1f}"
            print(
                f"| {case} | {1000 * timing.median_s:.2f} | {1000 * timing.cpu_median_s:.2f} | {over} |",
                flush=True,
            )
    if args.output:
        parameters = {name: value for name, value in vars(args).items() if name != "output"}
        write_result(args.output, "benchmarks.simulator", parameters, timings)


if __name__ == "__main__":
    main()
