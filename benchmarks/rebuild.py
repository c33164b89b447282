"""How fast a model's weights are rebuilt from seed and mask: `pemn.rebuild`, beside a copy of as many floats.

`rebuild` makes a new array, so it is compared with `ndarray.copy`, which makes one too. Generating the
prototype is part of it: with `full` that is every weight, with `mp` each weight of the largest layer, once. The case
`weights at hand` is `pemn.rebuild.apply_mask`: the same without the generator, whatever the strategy.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Case, Timing, measure, write_result
from pemn.distribution import Distribution
from pemn.mask import Mask
from pemn.prototype import Strategy
from pemn.rebuild import apply_mask, frozen_weights, rebuild
from pemn.spec import InputContract, Layer, ModelSpec

_CONTRACT = InputContract((3, 32, 32), (0.5,) * 3, (0.25,) * 3, tuple("0123456789"))
CASES = tuple(
    (strategy, distribution)
    for strategy in ("rp:1e-3", "rp:1e-1", "mp", "full")
    for distribution in (Distribution.SIGNED, Distribution.NORMAL)
)


def main() -> None:
    """Measures, prints a table and writes the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebuild", description=__doc__)
    parser.add_argument("--width", type=int, default=1024, help="of 20 square layers (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=9, help="of everything (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    layers = tuple(Layer(f"{i}.weight", (args.width, args.width), 0.0625) for i in range(20))
    specs = {
        f"{strategy}, {distribution}": ModelSpec(
            "benchmark", _CONTRACT, layers, 1, Strategy.parse(strategy), bytes(16), distribution
        )
        for strategy, distribution in CASES
    }
    sizes = tuple(layer.size for layer in layers)
    mask = Mask.from_bits(np.random.default_rng(1).random(sum(sizes)) < 0.5, sizes)
    weights = frozen_weights(specs["mp, normal"])
    for name, spec in specs.items():
        if not np.array_equal(
            rebuild(spec, mask), np.where(mask.bits(), frozen_weights(spec), np.float32(0))
        ):
            raise SystemExit(f"{name}: other weights than those of the definition")
    num_bytes = 4 * sum(sizes)
    cases = {"copy": Case(weights.copy, num_bytes, "bytes")}
    cases["weights at hand"] = Case(partial(apply_mask, weights, mask), num_bytes, "bytes")
    for name, spec in specs.items():
        cases[name] = Case(partial(rebuild, spec, mask), num_bytes, "bytes")
    timings: dict[str, Timing] = measure(cases, args.repetitions)
    rows: list[dict[str, Any]] = []
    print(f"{sum(sizes):,} weights; GB/s of float32 written, and times the speed of a copy")
    print("| case | GB/s | x |\n|---|---|---|")
    for name, timing in timings.items():
        share = timing.rate / timings["copy"].rate
        rows.append({"case": name, "gb_per_s": timing.rate / 1e9, "share_of_copy": share})
        print(f"| {name} | {timing.rate / 1e9:.2f} | {share:.2f} |")
    if args.output:
        parameters = {"width": args.width, "repetitions": args.repetitions}
        write_result(args.output, "benchmarks.rebuild", parameters, timings, rows=rows)


if __name__ == "__main__":
    main()
