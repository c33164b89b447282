"""How much of the decoders the fuzz reaches: `python -m tests.fuzz.coverage_of_decoders --mutants 10000`.

Mutants are made first; only their delivery is measured, without valid frames, encoders and numba. Counted are the lines
inside of the functions that read what comes from outside; what else a module holds writes, or is only defined. Lines
that raise `LocalError`, a bug of the caller, or lead to numba's loops do not count.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import coverage

from tests.fuzz.campaign import Campaign, coded_by, watch
from tests.fuzz.worlds import SPECS, frames

WANTED_PERCENT = 95

# What no bytes from outside lead to: a bug of the caller, and the way to compiled loops.
_NOT_FROM_BYTES = re.compile(r"raise LocalError|\bfast\.\w+\(")

# Functions, and classes with all their methods.
DECODERS: dict[str, tuple[str, ...]] = {
    "pemn.codec": ("_Sequence", "Reader"),
    "pemn.codec.bits": ("read_varint", "pack"),
    "pemn.codec.rice": ("encode", "_num_bits", "decode"),  # a reader encodes again, to compare
    "pemn.codec.rans": ("num_lanes", "Decoder", "_decode_by_one", "_decode_by_lanes", "_decode_steps"),
    "pemn.codec.model": ("blocks", "ContextModel"),
    "pemn.federation.flips": ("Draw", "Flips.hash", "decode_flips"),
    "pemn.federation.moves": ("decode_moves",),
    "pemn.federation.release": ("decode_mask", "_Contexts"),
    "pemn.federation.public": ("PublicState.hash",),
    "pemn.wire.checks": ("check", "check_text", "check_hash", "check_round", "is_minus_zero", "parse"),
    "pemn.wire.scan": ("scan", "_walk", "_read_varint"),
    "pemn.wire.messages": (
        *("Broadcast.from_proto", "Update.from_proto", "Ack.from_proto", "Failure.from_proto"),
        *("decode", "_parse", "_check_of"),
    ),
    "pemn.schedule": ("Schedule.__post_init__",),
    "pemn.wire.protocols": (
        "MaskProtocol.from_proto",
        "read_counts",
        "read_rates",
        "_schedule",
        "_start_levels",
    ),
    "pemn.wire.spec": (
        "LocalTraining.from_proto",
        "DataPlan.from_proto",
        "Spec.from_proto",
        "Spec.from_bytes",
    ),
    "pemn.wire.model": ("model_from_proto",),
    "pemn.artifact": ("Artifact.__post_init__", "Artifact.from_bytes", "_message", "_from_proto", "_inflate"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.coverage_of_decoders", description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", nargs="+", choices=SPECS, default=list(SPECS))
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a client says why it asks for more
    files = {name: str(inspect.getsourcefile(importlib.import_module(name))) for name in DECODERS}
    measure = coverage.Coverage(data_file=None, config_file=False, include=list(files.values()))
    share = options.mutants // 2
    for implementation, first in (("integers", 0), ("lanes", share)):
        with coded_by(implementation):
            campaign = Campaign(frames(*options.worlds), options.seed)
            made = [campaign.mutant(number) for number in range(first, first + share)]
            measure.start()
            for frame, mutant in made:
                watch(frame, mutant.data, traced=False)
            measure.stop()
    found = {name: of_module(measure, file, DECODERS[name]) for name, file in files.items()}
    for name, figures in found.items():
        missing = ", ".join(map(str, figures.missing)) or "none"
        print(f"{name:26}{figures.percent:6.1f} % of {figures.lines:3} lines; missing: {missing}")
    low = [name for name, figures in found.items() if figures.percent < WANTED_PERCENT]
    sys.exit(f"below {WANTED_PERCENT} %: {', '.join(low)}" if low else 0)


class Figures(NamedTuple):
    """How much of the decoders of a module ran, in percent; how many lines they have; which did not run."""

    percent: float
    lines: int
    missing: list[int]


def of_module(measure: coverage.Coverage, file: str, decoders: tuple[str, ...]) -> Figures:
    _, statements, _, missing, _ = measure.analysis2(file)
    source = Path(file).read_text()
    inside = {line for body in _bodies(ast.parse(source), decoders) for line in body}
    inside -= {number for number, line in enumerate(source.splitlines(), 1) if _NOT_FROM_BYTES.search(line)}
    lines, lacking = inside & set(statements), sorted(inside & set(missing))
    percent = 100 - 100 * len(lacking) / len(lines)
    return Figures(round(percent, 1), len(lines), lacking)


def _bodies(module: ast.Module, wanted: tuple[str, ...], within: str = "") -> Iterator[range]:
    """Yields the lines of the bodies of functions, which run when they are called."""
    for node in module.body:
        yield from _of_node(node, wanted, within)


def _of_node(node: ast.stmt, wanted: tuple[str, ...], within: str) -> Iterator[range]:
    if isinstance(node, ast.ClassDef):
        for each in node.body:
            yield from _of_node(each, wanted, f"{within}{node.name}.")
    elif isinstance(node, ast.FunctionDef) and {within + node.name, within.rstrip(".")} & set(wanted):
        first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
        yield range(first.lineno, (node.end_lineno or first.lineno) + 1)


if __name__ == "__main__":
    main()
