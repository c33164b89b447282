"""How fast masks are counted: `pemn.federation.planes` beside a copy of them and the obvious sum; and whole votes.

`bytes` are those of the packed masks that go in, one bit a weight. `votes` is `pemn.federation.tally` with flips as
they come out of a message: the server draws each vote's dither again, and counts two masks for it. All of it runs on
one thread; ratios are of processor time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.codec import only, version_of
from benchmarks.measure import Case, measure, table, write_result
from pemn.federation.flips import Draw, Flips
from pemn.federation.levels import Levels, normal_start_levels
from pemn.federation.planes import GROUP, BitPlanes
from pemn.federation.tally import Tally, learn
from pemn.schedule import Schedule
from pemn.wire.protocols import MaskProtocol

Masks = NDArray[np.uint8]

# Weights whose counters are taken at a time.
PART = 1 << 17
PROTOCOL = MaskProtocol(
    step=2621, eta_num=Schedule.always(1), eta_den=1, start_levels=normal_start_levels(3.0)
)


def main() -> None:
    """Measures, prints a table and writes the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tally", description=__doc__)
    parser.add_argument(
        "--num-params", type=int, default=10_000_000, help="weights, n (default: %(default)s)"
    )
    parser.add_argument("--masks", type=int, default=100, help="masks, and votes, K (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=9, help="of everything (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    n = args.num_params

    masks = draw_masks(args.masks, n)
    copy = np.empty_like(masks)
    if not np.array_equal(add(masks).integers(0, n), sum_obviously(masks, n)):
        raise SystemExit("the two sums differ: nothing measured")
    p_hat = np.full(n, 1 << 23, np.int32)
    levels, k = Levels(PROTOCOL, 1, (n,)), np.zeros(n, np.int8)
    votes = [Flips(Draw(levels, k, 1, slot), mask) for slot, mask in enumerate(masks)]

    def count(way: str) -> None:
        with only(way):
            tally = Tally(n)
            for vote in votes:
                tally.add(vote)
            learn(PROTOCOL, 1, p_hat, tally)

    cases = {
        "copy": Case(lambda: np.copyto(copy, masks), masks.nbytes),
        "add": Case(lambda: add(masks), masks.nbytes),
        "add and integers": Case(lambda: integers(add(masks), n), masks.nbytes),
        "unpack and sum": Case(lambda: sum_obviously(masks, n), masks.nbytes),
    }
    for way in ["numba", "numpy"] if version_of("numba") else ["numpy"]:
        cases[f"votes, {way}"] = Case(lambda way=way: count(way), masks.nbytes)  # type: ignore[misc]
    timings = measure(cases, args.repetitions)
    obvious, copied = timings["unpack and sum"], timings["copy"]
    ratios = {
        name: {
            "times_as_fast_as_unpack_and_sum": timing.cpu_rate / obvious.cpu_rate,
            "share_of_copy": timing.cpu_rate / copied.cpu_rate,
        }
        for name, timing in timings.items()
        if name.startswith("add")
    }
    print(table(timings))
    parameters = {"num_params": n, "masks": args.masks, "repetitions": args.repetitions}
    versions = {"numba": version_of("numba")}
    write_result(args.output, "benchmarks.tally", parameters, timings, versions=versions, ratios=ratios)


def draw_masks(num_masks: int, num_params: int) -> Masks:
    """Returns uint8 [num_masks, ceil(num_params / 8)]: random masks. The time does not depend on what they are."""
    random = np.random.default_rng(1)
    padding = np.packbits(np.ones(num_params, np.bool_), bitorder="little")
    drawn = np.frombuffer(random.bytes(num_masks * padding.size), np.uint8).reshape(num_masks, -1)
    return drawn & padding


def add(masks: Masks) -> BitPlanes:
    """Counts all masks, in bit planes."""
    planes = BitPlanes(masks.shape[1])
    for first in range(0, len(masks), GROUP):
        group = masks[first : first + GROUP]
        planes.add(len(group), lambda start, stop, group=group: list(group[:, start:stop]))  # type: ignore[misc]
    return planes


def integers(planes: BitPlanes, num_params: int) -> None:
    """Turns the bit planes into integers for all weights, a part at a time as `learn` wants them."""
    for start in range(0, num_params, PART):
        planes.integers(start, min(start + PART, num_params))


def sum_obviously(masks: Masks, num_params: int) -> NDArray[np.int32]:
    """Adds up all masks, unpacked one after the other."""
    total = np.zeros(num_params, np.int32)
    for mask in masks:
        total += np.unpackbits(mask, count=num_params, bitorder="little")
    return total


if __name__ == "__main__":
    main()
