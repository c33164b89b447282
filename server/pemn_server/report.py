"""From folders of runs to pages: of one run, or of several side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pemn.errors import FileError
from pemn.files import LEDGER_NAME, REPORT_NAME, SUMMARY_NAME, read_bytes, read_lines, write_atomic
from pemn.report import render
from pemn.report.comparison import Run, tables
from pemn.report.comparison_files import files

MAX_LEDGER_BYTES = 1 << 30
_MAX_SUMMARY_BYTES = 1 << 26


def load_run(folder: Path) -> Run:
    """Returns a finished run.

    Raises:
        FileError: If the folder holds none, or one that is damaged.
    """
    return Run.of(*_read(folder))


def write_run(folder: Path, out: Path) -> None:
    """Writes the page of one run anew.

    Args:
        folder: Of the run.
        out: Where its page goes; made if it is missing.

    Raises:
        FileError: If the folder holds no finished run, or the page cannot be written.
    """
    _write(out, {REPORT_NAME: render(*_read(folder)).encode()})


def write_comparison(out: Path, title: str, runs: Sequence[Run], target: float | None) -> None:
    """Writes tables, figures and the page of several runs.

    Args:
        out: Where they go; made if it is missing.
        title: For people.
        runs: At least one.
        target: The accuracy to reach, 0 .. 1; None: see `pemn.report.comparison`.

    Raises:
        ConfigError: If two runs of a row have one seed.
        FileError: If a file cannot be written.
    """
    _write(out, files(title, tables(runs, target)))


def _read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = folder / SUMMARY_NAME
    if not path.exists():
        raise FileError("no finished run", wanted=f"a folder with {SUMMARY_NAME}", where=folder)
    try:
        summary = json.loads(read_bytes(path, max_bytes=_MAX_SUMMARY_BYTES, what="summary"))
    except ValueError as error:
        raise FileError(f"not JSON, {error}", where=path) from error
    return summary, read_lines(folder / LEDGER_NAME, max_bytes=MAX_LEDGER_BYTES, what="ledger")


def _write(out: Path, made: dict[str, bytes]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder, {error.strerror}", where=out) from error
    for name, data in made.items():
        write_atomic(out / name, data)
