"""`pemn figures`: every strategy of the paper and both baselines, trained and drawn."""

from __future__ import annotations

import csv
import functools
import io
import json
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pemn.commands.train_settings import (
    BaselineSettings,
    FiguresSettings,
    RunSettings,
    TrainSettings,
    check_resumable,
)
from pemn.commands.training_run import CHECKPOINT_NAME, Run
from pemn.config import resolve
from pemn.data.dataset import Dataset
from pemn.data.datasets import Split, load
from pemn.errors import ConfigError, FileError, PemnError
from pemn.files import SUMMARY_NAME, write_atomic
from pemn.processes import in_processes
from pemn.report.figures import Point, draw_compression, draw_unique_values, to_png, to_svg
from pemn.report.published import PUBLISHED, nearest
from pemn.training.device import set_threads

CSV_NAME = "figures.csv"
_COLUMNS = (
    *("model", "setting", "percent", "seed", "accuracy", "accuracy_of_best_on_validation", "unique_values"),
    *("weight_compression_ratio", "total_bytes", "graph_bytes", "float32_bytes", "compression_ratio"),
    *("epochs", "dataset", "num_images", "seconds"),
)


def figures(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        PemnError: If options, data or files are wrong, or a run diverges.
    """
    settings = resolve(FiguresSettings, arguments, prog="pemn figures", env_prefix="PEMN_FIGURES_").settings
    cells, published = settings.cells(), _published(settings)
    if not settings.resume and any(_is_begun(cell) for cell in cells):
        raise ConfigError("the folder holds runs", wanted="--resume, or another", where=settings.run_dir)
    console = Console(highlight=False)
    left = [cell for cell in cells if _summary_of(cell) is None]
    if left:
        _load(left[0], "test")  # what is wrong with the data is wrong for all of them
    if len(left) < len(cells):
        console.print(f"{len(cells) - len(left)} of {len(cells)} runs are done already", highlight=False)
    # Each run goes on from its last whole epoch.
    begin = functools.partial(set_threads, settings.threads, num_processes=settings.jobs)
    began, failures = time.monotonic(), list[PemnError]()
    for count, (cell, failure) in enumerate(in_processes(_run, left, settings.jobs, begin), 1):
        seconds_left = (time.monotonic() - began) / count * (len(left) - count)
        place = f"{len(cells) - len(left) + count:>3}/{len(cells)}"
        told = f"failed: {failure}" if failure else _told(cell)
        remaining = f"  about {seconds_left / 60:.0f} min left" if seconds_left > 90 else ""
        console.print(
            f"{place}  {_name(cell)}, seed {cell.seed}: {told}{remaining}", markup=False, soft_wrap=True
        )
        if failure:
            failures.append(failure)
    if failures:  # the others are kept
        raise type(failures[0])(f"{len(failures)} of {len(cells)} runs failed, the first: {failures[0]}")
    rows = [_row(cell) for cell in cells]
    _write(settings, rows, published)
    console.print(f"{CSV_NAME} and the figures are in {settings.run_dir}/", markup=False, soft_wrap=True)
    return 0


def _published(settings: FiguresSettings) -> str | None:
    """Returns the network whose published points are drawn."""
    if settings.published is None:
        return nearest(settings.model, settings.dataset)
    if (settings.published, settings.dataset) not in PUBLISHED:
        names = [model for model, dataset in PUBLISHED if dataset == settings.dataset]
        wanted = ", ".join(names) or f"another data set than {settings.dataset}"
        raise ConfigError("published points", got=settings.published, wanted=wanted, where="--published")
    return settings.published


def _is_begun(cell: RunSettings) -> bool:
    return any((cell.run_dir / name).exists() for name in (CHECKPOINT_NAME, SUMMARY_NAME))


def _summary_of(cell: RunSettings) -> dict[str, Any] | None:
    """Returns what a finished run has left, or None.

    Raises:
        ConfigError: If it is a run with other options.
        FileError: If the summary is none.
    """
    path = cell.run_dir / SUMMARY_NAME
    if not path.exists():
        return None
    try:
        summary: dict[str, Any] = json.loads(path.read_bytes())
        identity = summary["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError("no summary of a run", where=path) from error
    check_resumable(identity, cell.identity())
    return summary


def _run(cell: RunSettings) -> PemnError | None:
    """Trains one run, or what is left of it; its progress goes to a file in its folder."""
    cell = cell.model_copy(update={"resume": (cell.run_dir / CHECKPOINT_NAME).exists()})
    text = io.StringIO()
    try:
        console = Console(file=text, width=200, highlight=False)
        # No log: its queue would be left behind by a process that is ended.
        run = Run(cell, console, _load, tensorboard=False)
        try:
            run.train()
            run.write_results()
        finally:
            write_atomic(cell.run_dir / "log.txt", text.getvalue().encode())
    except PemnError as error:
        return error
    return None


def _load(settings: RunSettings, split: Split) -> Dataset:
    return _loaded(settings.dataset, settings.data_dir, split)


_loaded = functools.cache(load)  # many runs of a process have one data set


def _setting(cell: RunSettings) -> str:
    if isinstance(cell, BaselineSettings):
        return cell.how
    assert isinstance(cell, TrainSettings)
    return cell.strategy


def _name(cell: RunSettings) -> str:
    ratio = f" {cell.compression_ratio:g} %" if isinstance(cell, BaselineSettings) else ""
    return _setting(cell) + ratio


def _told(cell: RunSettings) -> str:
    summary = _summary_of(cell) or {}
    return f"test accuracy {summary['accuracy']['last_epoch']:.4f}"


def _row(cell: RunSettings) -> dict[str, Any]:
    """Returns a line of the table."""
    summary = _summary_of(cell) or {}
    best = summary["accuracy"].get("best_on_validation", {})
    return {
        "model": cell.model,
        "setting": _setting(cell),
        "percent": cell.compression_ratio if isinstance(cell, BaselineSettings) else "",
        "seed": cell.seed,
        "accuracy": summary["accuracy"]["last_epoch"],
        "accuracy_of_best_on_validation": best.get("test", ""),
        **{name: summary.get(name, "") for name in ("unique_values", "weight_compression_ratio")},
        "total_bytes": summary["total_bytes"],
        "graph_bytes": summary.get("graph_bytes", 0),
        "float32_bytes": summary["float32_bytes"],
        "compression_ratio": summary["compression_ratio"],
        "epochs": summary["recipe"]["epochs"],
        "dataset": cell.dataset,
        "num_images": summary["num_images"],
        "seconds": round(summary["seconds"], 1),
    }


def _write(settings: FiguresSettings, rows: list[dict[str, Any]], published: str | None) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    points = _points(rows)
    beside = (published, PUBLISHED[published, settings.dataset]) if published else None
    files = {CSV_NAME: table.getvalue().encode()}
    for name, figure in (
        ("unique-values", draw_unique_values(settings.model, points, beside)),
        ("compression", draw_compression(settings.model, points, beside)),
    ):
        files |= {f"{name}.png": to_png(figure), f"{name}.svg": to_svg(figure)}
    for name, data in files.items():
        write_atomic(settings.run_dir / name, data)


def _points(rows: list[dict[str, Any]]) -> list[Point]:
    """Returns the runs that differ in their seeds alone as one."""
    groups: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["setting"], row["percent"]), []).append(row)
    return [
        Point(
            setting=setting,
            accuracies=tuple(100 * row["accuracy"] for row in group),
            unique_values=group[0]["unique_values"] or None,
            weight_compression_ratio=group[0]["weight_compression_ratio"] or None,
            num_bytes=round(sum(row["total_bytes"] - row["graph_bytes"] for row in group) / len(group)),
        )
        for (setting, _), group in groups.items()
    ]
