"""How fast votes, moves and released masks are coded and read, end to end: `pemn.federation`, and a copy of the bits.

What `benchmarks.codec` leaves out is in it: the draws of the dither and of the start levels, the probabilities, the
contexts, packing the bits. The network is a ResNet-18 without batch norm; its state is what a server makes of votes by
clients whose scores drift at random, partly all the same way. Speeds are by processor time, on one thread.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.codec import only, version_of
from benchmarks.measure import Case, Timing, measure, write_result
from pemn.federation.flips import Draw, decode_flips, draw_flips, encode_flips
from pemn.federation.levels import HIGHEST, LOWEST, Levels, normal_start_levels
from pemn.federation.moves import decode_moves, encode_moves
from pemn.federation.release import decode_mask, encode_mask, start_edges
from pemn.federation.tally import Tally, learn, settle, start
from pemn.mask import Mask
from pemn.schedule import Schedule
from pemn.wire.protocols import MaskProtocol

CHANNELS = (19, 64)
"""Of the network's first layers: 985,397 weights and 11,164,352."""

PROTOCOL = MaskProtocol(32_768, Schedule.always(1), 1, normal_start_levels(3.0))
SEED, NUM_ROUNDS, NUM_CLIENTS = 7, 3, 5
TOGETHER, ALONE = 0.35, 0.35
"""Standard deviations, in units of scores, of a round's drift: of all clients the same way, and of each by itself."""

_HEAD = """Million weights a second of processor time: the median, and the fastest run.
| n | message | bits a weight | way | encode | decode |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Message:
    """A message of one state.

    Attributes:
        encode: Codes it.
        decode: Reads what `encode` returned.
        right: Returns whether that is what was coded.
    """

    encode: Callable[[], bytes]
    decode: Callable[[bytes], Any]
    right: Callable[[Any], bool]


def main() -> None:
    """Measures, prints a table and writes the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.messages", description=__doc__)
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS, help="(default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=9, help="of everything (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()

    timings: dict[str, Timing] = {}
    rows: list[dict[str, Any]] = []
    ways = ["numba", "numpy"] if version_of("numba") else ["numpy"]
    print(_HEAD, flush=True)
    for channels in args.channels:
        levels = Levels(PROTOCOL, SEED, resnet18(channels))
        told = dict(messages(levels))
        measured = measure(dict(cases(levels.num_params, told, ways)), args.repetitions)
        timings |= {f"n = {levels.num_params}, {case}": timing for case, timing in measured.items()}
        for row in summarise(levels.num_params, told, ways, measured):
            rows.append(row)
            print(show(row), flush=True)
    if args.output:
        parameters = {"channels": list(args.channels), "repetitions": args.repetitions}
        versions = {"numba": version_of("numba")}
        write_result(args.output, "benchmarks.messages", parameters, timings, versions=versions, rows=rows)


def resnet18(channels: int) -> tuple[int, ...]:
    """Returns the number of weights of each layer of a ResNet-18 for small images of ten classes."""
    shapes = [(channels, 3, 3, 3)] + [(channels, channels, 3, 3)] * 4
    for wide in (2 * channels, 4 * channels, 8 * channels):
        shapes += [(wide, wide // 2, 3, 3), (wide, wide, 3, 3), (wide, wide // 2, 1, 1)]
        shapes += [(wide, wide, 3, 3)] * 2
    return (*map(math.prod, shapes), 10 * 8 * channels)


def messages(levels: Levels) -> Iterator[tuple[str, Message]]:
    """Yields the last vote, broadcast and mask of a short federation."""
    k = np.zeros(levels.num_params, np.int8)
    p_hat = start(levels.at(k))
    for round_ in range(1, NUM_ROUNDS + 1):
        tally, q = Tally(levels.num_params), levels.at(k)
        for slot in range(NUM_CLIENTS):
            draw = Draw(levels, k, round_, slot)
            vote = draw_flips(drift(q, round_, slot), draw)
            tally.add(vote)
        before, p_hat = k, learn(PROTOCOL, round_, p_hat, tally)
        k = settle(PROTOCOL, round_, p_hat, k, q)

    mask, edges = Mask.from_bits(levels.at(k) > 32_768, levels.sizes), start_edges(PROTOCOL)
    yield (
        "vote",
        Message(
            lambda: encode_flips(vote),
            lambda data: decode_flips(data, draw),
            lambda got: np.array_equal(got.mask, vote.mask),
        ),
    )
    yield (
        "moves",
        Message(
            lambda: encode_moves(before, k, levels),
            lambda data: decode_moves(data, before, levels),
            lambda got: np.array_equal(got, k),
        ),
    )
    yield (
        "mask",
        Message(
            lambda: encode_mask(mask, SEED, edges),
            lambda data: decode_mask(data, levels.sizes, SEED, edges),
            lambda got: bool(got == mask),
        ),
    )


def drift(q: NDArray[np.uint16], round_: int, slot: int) -> NDArray[np.uint16]:
    """Returns the probabilities of a client after a round: uint16 [n]."""
    scores = np.log(q / (65_536 - q.astype(np.float32)))
    for deviation, key in ((TOGETHER, [round_]), (ALONE, [round_, slot])):
        scores += deviation * np.random.default_rng(key).standard_normal(q.size, np.float32)
    p: NDArray[np.uint16] = np.rint(65_536 / (1 + np.exp(-scores))).clip(LOWEST, HIGHEST).astype(np.uint16)
    return p


def cases(num_params: int, told: Mapping[str, Message], ways: list[str]) -> Iterator[tuple[str, Case]]:
    """Yields what is measured, after a look at whether every way gives the same bytes and reads them right."""
    packed = np.random.default_rng(1).integers(0, 256, -(-num_params // 8), np.uint8)
    copy = np.empty_like(packed)
    yield "copy", Case(lambda: np.copyto(copy, packed), num_params, "weights")
    for name, message in told.items():
        data = message.encode()
        for way in ways:
            encode, decode = within(way, message.encode), within(way, partial(message.decode, data))
            if encode() != data or not message.right(decode()):
                raise SystemExit(f"{way} gives another {name}: nothing measured")
            yield f"{name}, {way}, encode", Case(encode, num_params, "weights")
            yield f"{name}, {way}, decode", Case(decode, num_params, "weights")


def within(way: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """Returns what does it with this implementation."""

    def timed() -> Any:
        with only(way):
            return run()

    return timed


def summarise(
    num_params: int, told: Mapping[str, Message], ways: list[str], timings: Mapping[str, Timing]
) -> Iterator[dict[str, Any]]:
    """Yields one row for each message and way."""
    for name, message in told.items():
        num_bytes = len(message.encode())
        for way in ways:
            row: dict[str, Any] = {
                "num_weights": num_params,
                "message": name,
                "way": way,
                "bytes": num_bytes,
                "bits_per_weight": 8 * num_bytes / num_params,
            }
            for direction in ("encode", "decode"):
                timing = timings[f"{name}, {way}, {direction}"]
                row[f"{direction}_mweights_per_s"] = timing.cpu_rate / 1e6
                row[f"{direction}_fastest_mweights_per_s"] = num_params / min(timing.cpu_seconds) / 1e6
                row[f"{direction}_times_copy"] = timing.cpu_median_s / timings["copy"].cpu_median_s
            yield row


def show(row: Mapping[str, Any]) -> str:
    """Returns a row as a line of a Markdown table."""
    speeds = " | ".join(
        f"{row[f'{way}_mweights_per_s']:.1f}, {row[f'{way}_fastest_mweights_per_s']:.1f}"
        for way in ("encode", "decode")
    )
    size = f"{row['bits_per_weight']:.3f}"
    return f"| {row['num_weights']:,} | {row['message']} | {size} | {row['way']} | {speeds} |"


if __name__ == "__main__":
    main()
