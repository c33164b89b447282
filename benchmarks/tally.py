"""How fast the server adds up votes: `pemn.federation.tally` beside a copy of the votes and the obvious sum.

`bytes` are those of the packed arrays that go in: two bits a weight and vote, raised and lowered. All of it runs on one
thread; ratios are of processor time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Case, measure, table, write_result
from pemn.federation.tally import Tally, learn
from pemn.wire.spec import MaskProtocol

Votes = NDArray[np.uint8]

# Weights whose sums are taken at a time.
PART = 1 << 17


def main() -> None:
    """Measures, prints a table and writes the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tally", description=__doc__)
    parser.add_argument(
        "--num-params", type=int, default=10_000_000, help="weights, n (default: %(default)s)"
    )
    parser.add_argument("--clients", type=int, default=100, help="votes, K (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=9, help="of everything (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    n, num_votes = args.num_params, args.clients

    votes = draw_votes(num_votes, n)
    copy, counted = np.empty_like(votes), add(votes, n)
    if not np.array_equal(counted.sums(0, n), sum_obviously(votes, n)):
        raise SystemExit("the two sums differ: nothing measured")
    protocol = MaskProtocol(step=2621, eta_num=1, eta_den=1, start_levels=())
    p_hat = np.full(n, 1 << 23, np.int32)
    cases = {
        "copy": Case(lambda: np.copyto(copy, votes), votes.nbytes),
        "add": Case(lambda: add(votes, n), votes.nbytes),
        "add and sums": Case(lambda: sum_up(add(votes, n), n), votes.nbytes),
        "add and learn": Case(lambda: learn(protocol, p_hat, add(votes, n)), votes.nbytes),
        "unpack and sum": Case(lambda: sum_obviously(votes, n), votes.nbytes),
    }
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
    parameters = {"num_params": n, "clients": num_votes, "repetitions": args.repetitions}
    write_result(args.output, "benchmarks.tally", parameters, timings, ratios=ratios)


def draw_votes(num_votes: int, num_params: int) -> Votes:
    """Returns uint8 [num_votes, 2, ceil(num_params / 8)]: random votes, a quarter +1 and a quarter -1.

    The time does not depend on what the votes are.
    """
    random = np.random.default_rng(1)
    votes = np.empty((num_votes, 2, -(-num_params // 8)), np.uint8)
    padding = np.packbits(np.ones(num_params, np.bool_), bitorder="little")
    for raised, lowered in votes:
        flips, signs = (np.frombuffer(random.bytes(raised.size), np.uint8) for _ in range(2))
        np.bitwise_and(flips & padding, signs, out=lowered)
        np.bitwise_xor(flips & padding, lowered, out=raised)
    return votes


def add(votes: Votes, num_params: int) -> Tally:
    """Adds up all votes, to bit planes."""
    tally = Tally(num_params)
    for raised, lowered in votes:
        tally.add(raised, lowered)
    tally.sums(0, 0)  # the last votes of an incomplete group are counted by now too
    return tally


def sum_up(tally: Tally, num_params: int) -> None:
    """Turns the bit planes into integers for all weights, a part at a time as `learn` wants them."""
    for start in range(0, num_params, PART):
        tally.sums(start, min(start + PART, num_params))


def sum_obviously(votes: Votes, num_params: int) -> NDArray[np.int32]:
    """Adds up all votes, unpacked one after the other."""
    total = np.zeros(num_params, np.int32)
    for raised, lowered in votes:
        total += np.unpackbits(raised, count=num_params, bitorder="little")
        total -= np.unpackbits(lowered, count=num_params, bitorder="little")
    return total


if __name__ == "__main__":
    main()
