"""Coverage-guided fuzzing of a target: `python -m tests.fuzz.atheris_targets NAME [CORPUS ...] [-max_total_time=60]`.

Needs the package atheris, which nothing else here does. What comes after the name goes to libFuzzer; without a corpus
it starts from the committed one, and writes what is new to a folder of its own below `runs/fuzz`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_MOST_BYTES = 4096


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    # Only what is imported in here is watched for new branches; numpy and protobuf are not.
    with atheris.instrument_imports(include=["pemn"]):
        targets = importlib.import_module("tests.fuzz.targets")
    name, *options = sys.argv[1:] or [""]
    if name not in targets.TARGETS:
        sys.exit(f"target: got {name!r}; wanted one of {', '.join(targets.TARGETS)}")
    if all(option.startswith("-") for option in options):
        found = Path("runs/fuzz") / name
        found.mkdir(parents=True, exist_ok=True)
        options += [str(found), str(targets.CORPUS / name)]
    if not any(option.startswith("-max_len") for option in options):
        options.append(f"-max_len={_MOST_BYTES}")
    atheris.Setup([sys.argv[0], *options], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
