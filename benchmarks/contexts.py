"""What each choice of contexts costs on real votes and moves.

    python -m benchmarks.contexts --output docs/results/contexts/digits.json --dataset digits --rounds 12

Trains a federation and, in some of its rounds, adds up the ideal code length of every vote and of the broadcast under
several sets of contexts. What PEMN does is the set called `pemn`; docs/algorithm.md draws the conclusions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import write_result
from pemn.codec.bits import unpack
from pemn.codec.log2 import LOG_ODDS
from pemn.codec.model import ContextModel
from pemn.federation.flips import Draw, draw_flips
from pemn.federation.groups import LayerGroups
from pemn.federation.levels import Levels
from pemn.methods import Server, ServerState, Vote
from pemn.training.device import set_threads
from pemn_client.trainer import TrainerFactory
from pemn_server.plan import make_plan
from pemn_server.settings import RunOptions

Digits = NDArray[np.int64]
Shaped = tuple[Digits, int]
"""A digit of every context, and how many values it has."""

# Arcsine buckets: where a sampled bit is about equally uncertain by one standard deviation.
_ARCSINE_EDGES = np.round(65536 * np.sin(np.pi / 2 * np.arange(1, 16) / 16) ** 2)
_DISTANCE_EDGES = 32 << np.arange(11)


@dataclass(frozen=True)
class Row:
    """What one set of contexts costs in one round: a vote on average, or the broadcast."""

    round: int
    coded: str
    contexts: str
    bytes: int
    bits_per_weight: float
    to_pemn: float


def buckets_of_odds(log_odds: NDArray[np.int64], per_octave: float, count: int) -> Shaped:
    """Returns buckets of equal width, the middle one beginning at even odds."""
    return np.clip(np.floor(log_odds / 65536 * per_octave) + count // 2, 0, count - 1).astype(np.int64), count


def code_bytes(
    groups: LayerGroups, decisions: Sequence[tuple[NDArray[np.bool_], Digits]], digits: Sequence[Shaped]
) -> float:
    """Returns the ideal length of kinds of decisions about all weights, each with its own counts.

    Args:
        groups: Of the layers; they decide the blocks.
        decisions: For each kind, the decisions bool [m] and which weights they are about, ascending.
        digits: Of all weights, the most telling first.
    """
    contexts = np.zeros(digits[0][0].size, np.int64)
    for digit, count in digits:
        contexts = contexts * count + digit
    length = 0
    for bits, about in decisions:
        model = ContextModel(tuple(count for _, count in digits))
        for start, stop in groups.blocks():
            first, last = np.searchsorted(about, (start, stop))
            model.count(bits[first:last], contexts[about[first:last]].astype(np.uint16))
            model.adapt()
        length += model.cost
    return length / 8


def votes(levels: Levels, draw: Draw, flips: NDArray[np.bool_]) -> Iterator[tuple[str, float]]:
    """Yields what a vote costs under each set of contexts."""
    n = levels.num_params
    q, u = (part.astype(np.int64) for part in (draw.q(0, n), draw.u(0, n)))
    odds, far = LOG_ODDS[q].astype(np.int64), LOG_ODDS[u].astype(np.int64) - LOG_ODDS[q]
    group: Shaped = levels.groups.ids(0, n).astype(np.int64), levels.groups.count
    octave, arcsine = buckets_of_odds(odds, 1, 16), (np.searchsorted(_ARCSINE_EDGES, q, side="right"), 16)
    plain: Shaped = np.searchsorted(_DISTANCE_EDGES, np.abs(u - q), side="right"), 12
    sign: Shaped = np.sign(draw.k).astype(np.int64) + 1, 3
    half = buckets_of_odds(far, 2, 32)
    sets: dict[str, list[Shaped]] = {
        "pemn": [half, octave, group],
        "|u - q| alone": [plain],
        "|u - q|, q (arcsine), group": [plain, arcsine, group],
        "distance of odds without its sign": [buckets_of_odds(np.abs(far), 2, 32), octave, group],
        "q by arcsine": [half, arcsine, group],
        "octaves": [buckets_of_odds(far, 1, 32), octave, group],
        "quarter octaves": [buckets_of_odds(far, 4, 64), octave, group],
        "without the group": [half, octave],
        "and the sign of k": [half, octave, sign, group],
    }
    for name, digits in sets.items():
        yield name, code_bytes(levels.groups, [(flips, np.arange(n))], digits)


def moves(
    levels: Levels, before: NDArray[np.int8], after: NDArray[np.int8], vote: NDArray[np.int64]
) -> Iterator[tuple[str, float]]:
    """Yields what a broadcast costs under each set of contexts; moves of two steps and more are left out."""
    n = levels.num_params
    q, moved = levels.at(before).astype(np.int64), after.astype(np.int64) - before
    about = np.flatnonzero(moved)
    decisions = [(moved != 0, np.arange(n)), (moved[about] < 0, about)]
    odds = LOG_ODDS[q].astype(np.int64)
    group: Shaped = levels.groups.ids(0, n).astype(np.int64), levels.groups.count
    sign: Shaped = np.sign(before).astype(np.int64) + 1, 3
    half = buckets_of_odds(odds, 2, 32)
    sets: dict[str, list[Shaped]] = {
        "pemn": [half, sign, group],
        "q alone": [half],
        "q by arcsine, 16 buckets": [(np.searchsorted(_ARCSINE_EDGES, q, side="right"), 16), sign, group],
        "octaves": [buckets_of_odds(odds, 1, 16), sign, group],
        "without the group": [half, sign],
        "and the receiver's own vote": [(vote + 1, 3), half, sign, group],
    }
    for name, digits in sets.items():
        yield name, code_bytes(levels.groups, decisions, digits)


def run(options: RunOptions, rounds: Sequence[int]) -> Iterator[Row]:
    """Trains, and yields a row for each of `rounds`, what is coded and set of contexts."""
    spec = make_plan(options).spec
    server, make_trainer = Server.of(spec), TrainerFactory(options.dataset, options.data_dir)
    trainers = [make_trainer(spec, slot) for slot in range(options.num_slots)]
    levels, state = Levels.of(server.spec), server.start()
    while state.public.round < max(rounds):
        round_ = state.public.round + 1
        ballot, costs, first = server.open(), [], np.empty(0, np.int64)
        for slot, trainer in enumerate(trainers):
            trained, metrics = trainer.train(levels.at(state.public.values), round_)
            draw = Draw(levels, state.public.values, round_, slot)
            flips = draw_flips(trained, draw)
            ballot.add(Vote(slot, round_, flips, metrics))
            if round_ in rounds:
                flipped = unpack(flips.mask, 0, levels.num_params)
                costs.append(dict(votes(levels, draw, flipped)))
                if slot == 0:
                    kept = draw.u(0, levels.num_params) < draw.q(0, levels.num_params)
                    first = np.where(kept, -1, 1) * flipped
        after: ServerState = server.commit(state, ballot)
        if round_ in rounds:
            mean = {name: float(np.mean([cost[name] for cost in costs])) for name in costs[0]}
            yield from rows(round_, "vote", mean, levels.num_params)
            broadcast = dict(moves(levels, state.public.values, after.public.values, first))
            yield from rows(round_, "moves", broadcast, levels.num_params)
        state = after
        print(f"round {round_} of {max(rounds)}", file=sys.stderr)


def rows(round_: int, what: str, cost: Mapping[str, float], n: int) -> Iterator[Row]:
    """Yields the rows of one round."""
    for name, length in cost.items():
        yield Row(
            round_, what, name, round(length), round(8 * length / n, 4), round(length / cost["pemn"], 4)
        )


def main() -> None:
    """Runs the benchmark, prints its table and writes its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contexts", description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", default="mlp-256-256")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    set_threads(1, num_processes=1)
    options = RunOptions(
        dataset=args.dataset,
        data_dir=args.data_dir,
        model=args.model,
        clients=args.clients,
        min_clients=1,
        epochs=args.epochs,
        rounds=args.rounds,
        seed=args.seed,
    )
    table = list(run(options, sorted({1, max(args.rounds // 2, 1), args.rounds})))
    for row in table:
        shares = f"{row.bits_per_weight:.4f}  {row.to_pemn:.3f}"
        print(f"{row.round:>3}  {row.coded:5}  {row.contexts:36} {row.bytes:>8}  {shares}")
    parameters = {name: value for name, value in vars(args).items() if name not in ("output", "data_dir")}
    write_result(args.output, "benchmarks.contexts", parameters, {}, rows=[asdict(row) for row in table])


if __name__ == "__main__":
    main()
