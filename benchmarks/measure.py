"""What every benchmark does alike: interleaved repetitions, medians, the machine, a JSON file."""

from __future__ import annotations

import gc
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pemn
from pemn.files import write_atomic


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        run: What is timed. Its result is thrown away; make sure elsewhere that it is right.
        amount: What one run goes through, in `unit`.
        unit: `bytes`, `bits` or another plural.
    """

    run: Callable[[], object]
    amount: int
    unit: str = "bytes"


@dataclass(frozen=True)
class Timing:
    """How long a case took.

    Attributes:
        seconds: Wall-clock time of each repetition.
        cpu_seconds: Processor time of each, over all threads: less than the wall-clock time where the machine was
            busy with something else.
        amount: See `Case`.
        unit: See `Case`.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    amount: int
    unit: str

    @property
    def median_s(self) -> float:
        """Median wall-clock time of a run."""
        return statistics.median(self.seconds)

    @property
    def cpu_median_s(self) -> float:
        """Median processor time of a run."""
        return statistics.median(self.cpu_seconds)

    @property
    def rate(self) -> float:
        """Amount a second of wall-clock time, by the median."""
        return self.amount / self.median_s

    @property
    def cpu_rate(self) -> float:
        """Amount a second of processor time, by the median."""
        return self.amount / self.cpu_median_s

    def to_json(self) -> dict[str, Any]:
        """Returns what a result file says of it."""
        return {
            self.unit: self.amount,
            "median_s": self.median_s,
            "min_s": min(self.seconds),
            "max_s": max(self.seconds),
            "cpu_median_s": self.cpu_median_s,
            "cpu_min_s": min(self.cpu_seconds),
            "cpu_max_s": max(self.cpu_seconds),
            f"{self.unit}_per_s": self.rate,
            f"{self.unit}_per_cpu_s": self.cpu_rate,
        }


def measure(cases: Mapping[str, Case], repetitions: int) -> dict[str, Timing]:
    """Runs every case once unmeasured, then all of them in turn, again and again.

    The turns spread what else the machine does over all cases, so that their ratios hold where seconds do not.

    Args:
        cases: By name.
        repetitions: Measured runs of each, >= 1.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case.run()
    gc.disable()  # a collection would be charged to whichever case it falls into
    try:
        for _ in range(repetitions):
            for name, case in cases.items():
                start, cpu_start = time.perf_counter(), time.process_time()
                case.run()
                cpu_seconds[name].append(time.process_time() - cpu_start)
                seconds[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return {
        name: Timing(tuple(seconds[name]), tuple(cpu_seconds[name]), case.amount, case.unit)
        for name, case in cases.items()
    }


def describe_machine() -> dict[str, Any]:
    """Returns processor, cores and versions; nothing that names the machine."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pemn": pemn.__version__,
    }


def write_result(
    path: Path, module: str, parameters: Mapping[str, Any], timings: Mapping[str, Timing], **more: Any
) -> None:
    """Writes a result file.

    Args:
        path: Where to; its folder must exist.
        module: Name of the benchmark, `benchmarks.<name>`, for the command line.
        parameters: What it was run with.
        timings: What `measure` returned.
        more: Further fields, such as ratios.
    """
    result = {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "machine": describe_machine(),
        "parameters": dict(parameters),
        "results": {name: timing.to_json() for name, timing in timings.items()},
        **more,
    }
    write_atomic(path, (json.dumps(result, indent=2) + "\n").encode())


def table(timings: Mapping[str, Timing]) -> str:
    """Returns one line a case: median, fastest and slowest run and rate, by wall clock and by processor time."""
    width = max(map(len, timings))
    lines = []
    for name, timing in timings.items():
        columns = [f"{name:{width}}"]
        clocks = (("wall", timing.seconds, timing.rate), ("cpu", timing.cpu_seconds, timing.cpu_rate))
        for clock, seconds, rate in clocks:
            median, least, most = (f(seconds) * 1e3 for f in (statistics.median, min, max))
            columns.append(
                f"{clock} {median:8.2f} ms ({least:.2f} .. {most:.2f}) {rate / 1e9:6.2f} G{timing.unit}/s"
            )
        lines.append("  ".join(columns))
    return "\n".join(lines)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
