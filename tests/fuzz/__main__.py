"""The long form: `python -m tests.fuzz --mutants 100000 --seed 1 --summary FILE`."""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.campaign import IMPLEMENTATIONS, Campaign, coded_by
from tests.fuzz.worlds import SPECS, frames

_HANG_S = 60
_TELL_S = 10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", nargs="+", choices=SPECS, default=list(SPECS))
    parser.add_argument(
        "--coded-by", choices=IMPLEMENTATIONS, default="chosen", help="which loops do the coding"
    )
    parser.add_argument("--only", type=int, help="delivers this one mutant and says what happens")
    parser.add_argument("--summary", type=Path, help="where to write what came of it, as JSON")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a client says why it asks for more
    with coded_by(options.coded_by):
        print(f"running {len(options.worlds)} federations", file=sys.stderr)
        campaign = Campaign(frames(*options.worlds), options.seed)
        start = time.monotonic()
        if options.only is not None:
            frame, mutant = campaign.mutant(options.only)
            print(f"{mutant.kind} of the {frame.kind} of {frame.world!r}, {len(mutant.data)} bytes")
            print(mutant.data[:2000].hex())
            campaign.deliver(options.only)
        else:
            _run(campaign, options.mutants)
    summary = summarise(campaign, time.monotonic() - start)
    if options.summary:
        options.summary.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps({key: summary[key] for key in ("mutants", "plain", "resealed")}, indent=1))
    failures = campaign.report.failures
    print(*failures, f"{campaign.report.num_mutants} mutants, {len(failures)} failures", sep="\n")
    sys.exit(bool(failures))


def _run(campaign: Campaign, count: int) -> None:
    start = told = time.monotonic()
    for number in range(count):
        faulthandler.dump_traceback_later(_HANG_S, exit=True)
        campaign.deliver(number)
        now = time.monotonic()
        if now - told > _TELL_S:
            told, left = now, (now - start) / (number + 1) * (count - number - 1)
            failures = campaign.report.failures
            line = f"{number + 1:,} of {count:,}, {len(failures)} failures, {left / 60:.1f} min left"
            print(line, *failures[-1:], sep="; ", file=sys.stderr)
    faulthandler.cancel_dump_traceback_later()


def summarise(campaign: Campaign, seconds: float) -> dict[str, Any]:
    """Returns all that a report needs, for JSON."""
    report = campaign.report
    forms: dict[str, Any] = {}
    for form, kinds in report.fates.items():
        accepted = report.count(form, "accepted")
        forms[form] = {
            "mutants": sum(sum(fates.values()) for fates in kinds.values()),
            "accepted": accepted,
            "cpu_ms": dict(zip(("median", "99 %", "most"), _quantiles(report.cpu_ms[form]), strict=True)),
            "by_kind": {kind: dict(sorted(fates.items())) for kind, fates in sorted(kinds.items())},
        }
    return {
        "seed": campaign.seed,
        "mutants": report.num_mutants,
        "frames": len(campaign.frames),
        "seconds": round(seconds),
        **forms,
        "peak_bytes": {
            name: {"mutants": report.peak_bytes[name], "bound": bound.num_bytes}
            for name, bound in campaign.bounds.items()
        },
        "failures": report.failures,
    }


def _quantiles(values: list[float]) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values or [0.0], (50, 99, 100))]


if __name__ == "__main__":
    main()
