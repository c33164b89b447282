"""How long frames of a million weights take: `python -m tests.fuzz.timing`, on a machine that does nothing else.

Times are of this thread, in milliseconds. `refused at the check`: a bit was flipped. `resealed`: with a right check and
right hashes, so that the decoder sees what was done to the coded flips or moves.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz import sequences
from tests.fuzz.campaign import IMPLEMENTATIONS, coded_by, watch
from tests.fuzz.mutators import BYTES, with_sequence
from tests.fuzz.seals import body, mend, seal
from tests.fuzz.worlds import Frame, run
from tests.networks import model_spec, run_spec

_KINDS = "update", "next task", "merged task"
_SHAPES = (1024, 512), (512, 512), (256, 1024)

_DONE: dict[str, Callable[[Frame, Sequence[Frame], random.Random], bytes | None]] = {
    "damaged": with_sequence(lambda code, data, draw: sequences.damage(data, draw)),
    "bombs": with_sequence(lambda code, data, draw: sequences.bomb(code.size, draw)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.timing", description=__doc__)
    parser.add_argument("--mutants", type=int, default=20, help="of each frame and kind")
    parser.add_argument("--coded-by", choices=IMPLEMENTATIONS, default="chosen")
    parser.add_argument("--summary", type=Path)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a client says why it asks for more
    spec = run_spec(model_spec(*_SHAPES), num_slots=4, step=900)
    with coded_by(options.coded_by):
        valid = [frame for frame in run("million", spec, rounds=1) if frame.kind in _KINDS]
        large = [frame for frame in valid if len(frame.data) > 10_000]
        found = {}
        for number, frame in enumerate(large):
            found[f"{frame.kind} {number}, {len(frame.data)} bytes"] = _times(frame, large, options.mutants)
    print(json.dumps(found, indent=1))
    if options.summary:
        options.summary.write_text(json.dumps(found, indent=1) + "\n")


def _times(frame: Frame, others: Sequence[Frame], count: int) -> dict[str, object]:
    draw = random.Random(1)
    flip = BYTES["bit flips"]
    made = {
        "valid": [frame.data] * 5,
        "refused at the check": [flip(frame.data, b"", draw) for _ in range(count)],
        **{
            f"resealed, {name}": [
                seal(frame, mend(frame, change(frame, others, draw) or body(frame))) for _ in range(count)
            ]
            for name, change in _DONE.items()
        },
    }
    return {name: _quantiles(frame, data) for name, data in made.items()}


def _quantiles(frame: Frame, mutants: list[bytes]) -> dict[str, float]:
    cpu_ms = [1000 * watch(frame, data, traced=False)[2].cpu_s for data in mutants]
    return {"median": round(statistics.median(cpu_ms), 2), "most": round(max(cpu_ms), 2)}


if __name__ == "__main__":
    main()
