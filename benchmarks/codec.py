"""How fast and how near the entropy masks are coded: `pemn.codec`, a copy of the packed bits, and constriction.

Masks are drawn with probabilities theta that both ends know in 64 steps of the arcsine of their root, or all alike.
PEMN learns the shares of ones while it codes. constriction (where it is installed) gets them for nothing, and its
fastest way: the decisions sorted by context, one model for each; how to sort them is found out beforehand.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Case, Timing, measure, write_result
from pemn.codec import Reader, blocks, encode, fast, rans

SIZES = (100_000, 1_000_000, 11_164_352)
MASKS = ("Beta(0.05)", "Beta(0.1)", "Beta(0.3)", "p = 0.1", "p = 0.01", "p = 0.001")
BUCKETS = 64
_HEAD = """Million mask bits a second: the median, and the fastest run; (x) times constriction's ANS coder in this run.
| mask | n | way | bytes (over the entropy) | encode | decode |
|---|---|---|---|---|---|"""
MOST_FOR_INTEGERS = 1_000_000
"""Weights; with more of them the loop over plain integers takes seconds."""


@dataclass(frozen=True)
class Mask:
    """What is coded: bool [n], its contexts, uint16 [n], and how many there are."""

    decisions: NDArray[np.bool_]
    contexts: NDArray[np.uint16]
    num_contexts: int

    @functools.cached_property
    def ones_and_totals(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many ones and how many decisions each context has, int64 [num_contexts] each."""
        totals = np.bincount(self.contexts, minlength=self.num_contexts)
        return np.bincount(self.contexts[self.decisions], minlength=self.num_contexts), totals

    @property
    def entropy_bits(self) -> float:
        """Sum over the contexts of n_c h(ones_c / n_c): what nobody gets below who codes each alone."""
        ones, totals = self.ones_and_totals
        parts = np.stack([ones, totals - ones]).astype(np.float64)
        shares = np.divide(parts, totals, out=np.ones_like(parts), where=parts > 0)
        return float(-(parts * np.log2(shares)).sum())


@dataclass(frozen=True)
class Coded:
    """A way of coding one mask.

    Attributes:
        num_bytes: What it takes.
        encode: Codes it.
        decode: Reads it; returns bool [n].
    """

    num_bytes: int
    encode: Callable[[], object]
    decode: Callable[[], NDArray[np.bool_]]


def main() -> None:
    """Measures, prints a table and writes the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--num-weights", type=int, nargs="+", default=SIZES, help="n (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=7, help="of everything (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()

    timings: dict[str, Timing] = {}
    rows: list[dict[str, Any]] = []
    versions = {name: version_of(name) for name in ("numba", "constriction")}
    if missing := [name for name, version in versions.items() if version is None]:
        print(f"not installed, so left out: {', '.join(missing)} (pip install '.[bench]')")
    print(_HEAD, flush=True)
    for num_weights in args.num_weights:
        for name in MASKS:
            mask = draw(name, num_weights)
            coded = dict(ways(mask))
            for way, it in coded.items():
                if not np.array_equal(it.decode(), mask.decisions):
                    raise SystemExit(f"{way} gives back another mask: nothing measured")
            measured = measure(cases(mask, coded), args.repetitions)
            timings |= {f"{name}, n = {num_weights}, {case}": timing for case, timing in measured.items()}
            for row in summarise(mask, coded, measured):
                rows.append({"mask": name, "num_weights": num_weights, **row})
                print(show(rows[-1]), flush=True)
    parameters = {"num_weights": list(args.num_weights), "masks": MASKS, "repetitions": args.repetitions}
    write_result(args.output, "benchmarks.codec", parameters, timings, versions=versions, rows=rows)


def draw(name: str, num_weights: int) -> Mask:
    """Returns the mask with this name, the same every time."""
    random = np.random.default_rng(1)
    if name.startswith("p = "):
        decisions = random.random(num_weights) < float(name.removeprefix("p = "))
        return Mask(decisions, np.zeros(num_weights, np.uint16), 1)
    a = float(name.removeprefix("Beta(").removesuffix(")"))
    theta = random.beta(a, a, num_weights)
    steps = BUCKETS * 2 / np.pi * np.arcsin(np.sqrt(theta))
    return Mask(random.random(num_weights) < theta, np.minimum(steps, BUCKETS - 1).astype(np.uint16), BUCKETS)


def ways(mask: Mask) -> Iterator[tuple[str, Coded]]:
    """Yields every way of coding the mask that this machine has."""
    if version_of("numba"):
        yield "numba", with_pemn(mask, "numba")
    yield "numpy", with_pemn(mask, "numpy")
    if mask.decisions.size <= MOST_FOR_INTEGERS:
        yield "integers", with_pemn(mask, "integers")
    if version_of("constriction"):
        yield "constriction ANS", with_constriction(mask, queue=False)
        yield "constriction range", with_constriction(mask, queue=True)


def with_pemn(mask: Mask, implementation: str) -> Coded:
    """Codes with `pemn.codec`.

    `numpy` is what it does without numba, which with few lanes is the loop over integers; `integers` is that alone.
    """
    size, shape = mask.decisions.size, (mask.num_contexts,)

    def write() -> bytes:
        with only(implementation):
            return encode(size, lambda i, j: [(mask.decisions[i:j], mask.contexts[i:j])], shape)

    data = write()

    def read() -> NDArray[np.bool_]:
        out = np.empty(size, np.bool_)
        with only(implementation):
            reader = Reader(data, shape)
            for start, stop in blocks(size):
                out[start:stop] = reader.read(mask.contexts[start:stop])
                reader.end_block()
            reader.finish()
        return out

    return Coded(len(data), write, read)


@contextmanager
def only(implementation: str) -> Iterator[None]:
    """Codes with this implementation whatever the size of blocks and the number of lanes."""
    without_numba = functools.cache(lambda: None)
    few = rans.MAX_LANES + 1 if implementation == "integers" else rans._FEW_LANES
    with (
        mock.patch.object(fast, "_load", fast._load if implementation == "numba" else without_numba),
        mock.patch.object(fast, "PATIENCE", -1),
        mock.patch.object(rans, "_FEW_LANES", few),
    ):
        yield


def with_constriction(mask: Mask, queue: bool) -> Coded:
    """Codes with constriction's range coder (a queue) or its ANS coder (a stack), a fixed model for each context."""
    stream = importlib.import_module("constriction").stream
    order = np.argsort(mask.contexts, kind="stable")
    ones, totals = mask.ones_and_totals
    # 15 bits, as PEMN has them; so there is no model with p = 0 or 1 either.
    shares = np.clip(np.round(ones / np.maximum(totals, 1) * 32_768), 1, 32_767) / 32_768
    models = [stream.model.Bernoulli(share, perfect=False) for share in shares.tolist()]
    ends = np.cumsum(totals).tolist()

    def write() -> NDArray[np.uint32]:
        symbols = mask.decisions[order].astype(np.int32)
        parts = list(zip(np.split(symbols, ends[:-1]), models, strict=True))
        if queue:
            coder = stream.queue.RangeEncoder()
            for part, model in parts:
                coder.encode(part, model)
        else:
            coder = stream.stack.AnsCoder()
            for part, model in reversed(parts):
                coder.encode_reverse(part, model)
        words: NDArray[np.uint32] = coder.get_compressed()
        return words

    words = write()

    def read() -> NDArray[np.bool_]:
        coder = stream.queue.RangeDecoder(words) if queue else stream.stack.AnsCoder(words)
        counts = totals.tolist()
        parts = [coder.decode(model, count) for model, count in zip(models, counts, strict=True)]
        out = np.empty(mask.decisions.size, np.bool_)
        out[order] = np.concatenate(parts)
        return out

    return Coded(words.nbytes, write, read)


def cases(mask: Mask, coded: Mapping[str, Coded]) -> dict[str, Case]:
    """Returns what is measured, in bits of the mask."""
    packed = np.packbits(mask.decisions)
    copy, size = np.empty_like(packed), mask.decisions.size
    out = {"copy": Case(lambda: np.copyto(copy, packed), size, "bits")}
    for way, it in coded.items():
        out[f"{way}, encode"] = Case(it.encode, size, "bits")
        out[f"{way}, decode"] = Case(it.decode, size, "bits")
    return out


def summarise(
    mask: Mask, coded: Mapping[str, Coded], timings: Mapping[str, Timing]
) -> Iterator[dict[str, Any]]:
    """Yields one row for each way: size over the entropy, speeds, and how they compare."""
    for way, it in coded.items():
        row: dict[str, Any] = {
            "way": way,
            "bytes": it.num_bytes,
            "over_entropy": 8 * it.num_bytes / mask.entropy_bits - 1,
        }
        for direction in ("encode", "decode"):
            timing = timings[f"{way}, {direction}"]
            rate = timing.rate
            row[f"{direction}_mbit_per_s"] = rate / 1e6
            # What else the machine does makes runs slower, never faster.
            row[f"{direction}_fastest_mbit_per_s"] = rate / 1e6 * timing.median_s / min(timing.seconds)
            row[f"{direction}_share_of_copy"] = rate / timings["copy"].rate
            other = timings.get(f"constriction ANS, {direction}")
            if other is not None:
                row[f"{direction}_times_constriction_ans"] = rate / other.rate
        yield row


def show(row: Mapping[str, Any]) -> str:
    """Returns a row as a line of a Markdown table."""
    speeds = []
    for direction in ("encode", "decode"):
        ratio = row.get(f"{direction}_times_constriction_ans")
        median, fastest = row[f"{direction}_mbit_per_s"], row[f"{direction}_fastest_mbit_per_s"]
        speeds.append(f"{median:.1f}, {fastest:.1f}" + ("" if ratio is None else f" ({ratio:.2f}x)"))
    size = f"{row['bytes']:,} (+{row['over_entropy']:.2%})"
    return f"| {row['mask']} | {row['num_weights']:,} | {row['way']} | {size} | {' | '.join(speeds)} |"


def version_of(package: str) -> str | None:
    """Returns the version of an optional package, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
