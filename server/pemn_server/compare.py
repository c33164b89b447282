"""`pemn-server compare`: methods by seeds by splits by networks, run, resumed, and put side by side."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console

from pemn.config import read_toml, settings_from
from pemn.errors import ConfigError, FileError, PemnError
from pemn.files import LEDGER_NAME, REPORT_NAME, SUMMARY_NAME, read_bytes, write_atomic
from pemn.processes import in_processes
from pemn.report.comparison_files import slug
from pemn.training.device import set_threads
from pemn_server import checkpoint
from pemn_server.log import Log
from pemn_server.report import load_run, write_comparison, write_run
from pemn_server.settings import CompareSettings, SimulateSettings
from pemn_server.simulation import simulate

CONFIG_NAME, LOG_NAME = "comparison.toml", "log.txt"
_MAX_CONFIG_BYTES = 1 << 20

Names = Annotated[list[str], Field(min_length=1)]


class _Head(BaseModel):
    """What a comparison's file says besides the options of its runs."""

    model_config = ConfigDict(extra="ignore", strict=True)

    title: str = "Comparison"
    target: float | None = Field(default=None, gt=0, le=1)
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    partitions: Names = ["iid"]
    models: Names = ["mlp-256-256"]
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True)
class Comparison:
    """A comparison's file, read.

    Attributes:
        title: For people.
        target: The accuracy to reach, 0 .. 1; None: see `pemn.report.comparison`.
        runs: Options of each, in the order of the page; each has a folder of its own.
    """

    title: str
    target: float | None
    runs: tuple[SimulateSettings, ...]

    @classmethod
    def read(cls, path: Path, folder: Path) -> Comparison:
        """Reads a file.

        Args:
            path: TOML; see docs/comparisons.md.
            folder: Where its runs go.

        Raises:
            ConfigError: If an option of any run is unknown or wrong.
        """
        document = read_toml(path)
        try:
            head = _Head.model_validate(document)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = ".".join(map(str, problem["loc"]))
            raise ConfigError(f"{name}: {problem['msg']}", got=problem["input"], where=path) from error
        common = {name: value for name, value in document.items() if name not in _Head.model_fields}
        runs = []
        for partition, model in product(head.partitions, head.models):
            for label, own in head.methods.items():
                options, where = {"method": label, **common, **own}, f"{path}, method {label!r}"
                _check_options(options, where)
                # Seeds of its own: what takes too long is run with fewer.
                seeds = options.pop("seeds", head.seeds)
                if not isinstance(seeds, list) or not seeds:
                    raise ConfigError("seeds", got=seeds, wanted="a list", where=where)
                for seed in seeds:
                    names = (slug(label), slug(partition), slug(model), f"seed-{seed}")
                    of_run = {"label": label, "partition": partition, "model": model, "seed": seed}
                    given = {**options, **of_run, "run-dir": folder.joinpath("runs", *names)}
                    runs.append(settings_from(SimulateSettings, given, where=where))
        folders = [run.run_dir for run in runs]
        if len(set(folders)) < len(folders):
            raise ConfigError("two runs that differ in punctuation alone", where=path)
        return cls(head.title, head.target, tuple(runs))

    @classmethod
    def of(cls, folder: Path) -> Comparison:
        """Reads the file of a comparison that was begun."""
        return cls.read(folder / CONFIG_NAME, folder)


def compare(settings: CompareSettings, config: Path, console: Console) -> None:
    """Runs what is left of a comparison and writes what it gives.

    Raises:
        PemnError: If options, data or files are wrong, or a run fails; the others are kept.
    """
    folder = settings.run_dir
    comparison = Comparison.read(config, folder)
    begun = [run for run in comparison.runs if _is_begun(run)]
    if begun and not settings.resume:
        raise ConfigError("the folder holds runs", wanted="--resume, or another", where=folder)
    for run in begun:
        checkpoint.load(_folder(run) / checkpoint.CHECKPOINT_NAME, run)
    left = [run for run in comparison.runs if not _is_done(run)]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / CONFIG_NAME, read_bytes(config, max_bytes=_MAX_CONFIG_BYTES, what="comparison"))
    num_runs, done = len(comparison.runs), len(comparison.runs) - len(left)
    _say(console, f"{num_runs} runs, {done} of them done already; each tells how it goes in its {LOG_NAME}")
    began, failures = time.monotonic(), list[PemnError]()
    begin = functools.partial(set_threads, settings.threads, num_processes=settings.jobs)
    for count, (run, failure) in enumerate(in_processes(_run, left, settings.jobs, begin), 1):
        minutes_left = (time.monotonic() - began) / count * (len(left) - count) / 60
        told = f"failed: {failure}" if failure else f"test accuracy {load_run(_folder(run)).accuracy:.4f}"
        remaining = f"  about {minutes_left:.0f} min left" if minutes_left > 1.5 else ""
        _say(console, f"{done + count:>3}/{num_runs}  {_name(run)}: {told}{remaining}")
        if failure:
            failures.append(failure)
    if failures:
        raise type(failures[0])(f"{len(failures)} of {num_runs} runs failed, the first: {failures[0]}")
    runs = [load_run(_folder(run)) for run in comparison.runs]
    write_comparison(folder, comparison.title, runs, comparison.target)
    _say(console, f"tables, figures and report.html are in {folder}/")


def report(folders: Sequence[Path], out: Path | None, title: str | None, target: float | None) -> Path:
    """Writes the page of one run anew, or of all finished runs of comparisons and folders side by side.

    Args:
        folders: Of runs and comparisons.
        out: Where it goes; the folder itself if it is only one.
        title: Of several runs; a comparison's own if not given.
        target: See `pemn.report.comparison`; a comparison's own if not given.

    Returns:
        The page.

    Raises:
        ConfigError: If it is not said where the page of several goes, or two runs of a row have one seed.
        FileError: If a folder holds no finished run, or a file cannot be written.
    """
    if out is None and len(folders) > 1:
        raise ConfigError("several folders", wanted="--out DIR")
    out = out or folders[0]
    comparisons = [Comparison.of(folder) for folder in folders if (folder / CONFIG_NAME).exists()]
    if not comparisons and len(folders) == 1:
        write_run(folders[0], out)
        return out / REPORT_NAME
    found: list[Path] = []
    for folder in folders:
        if (folder / CONFIG_NAME).exists():
            found += (_folder(run) for run in Comparison.of(folder).runs if _is_done(run))
        else:
            found.append(folder)
    if not found:
        raise FileError("no run is finished yet", where=folders[0])
    first = comparisons[0] if comparisons else Comparison("Comparison", None, ())
    wanted = first.target if target is None else target
    write_comparison(out, title or first.title, [load_run(folder) for folder in found], wanted)
    return out / REPORT_NAME


def _run(settings: SimulateSettings) -> PemnError | None:
    """Makes one run, or what is left of it; its progress goes to a file in its folder."""
    folder = _folder(settings)
    resume = (folder / checkpoint.CHECKPOINT_NAME).exists()
    if not resume:  # stopped before its first round was whole
        (folder / LEDGER_NAME).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_NAME).open("a", buffering=1, encoding="utf-8") as log:
        try:
            console = Console(file=log, width=200, highlight=False)
            threads = settings.threads or torch.get_num_threads()  # this process's share of the cores
            simulate(settings.model_copy(update={"resume": resume, "threads": threads}), folder, Log(console))
        except PemnError as error:
            return error
    return None


def _folder(run: SimulateSettings) -> Path:
    assert run.run_dir is not None
    return run.run_dir


def _is_begun(run: SimulateSettings) -> bool:
    return (_folder(run) / checkpoint.CHECKPOINT_NAME).exists()


def _is_done(run: SimulateSettings) -> bool:
    return (_folder(run) / SUMMARY_NAME).exists()


def _name(run: SimulateSettings) -> str:
    return f"{run.label}, {run.partition}, {run.model}, seed {run.seed}"


def _check_options(options: Mapping[str, Any], where: str) -> None:
    """Raises a ConfigError for an option that the comparison sets itself."""
    for name in ("seed", "partition", "model", "label", "run-dir", "run_dir", "resume"):
        if name in options:
            wanted = f"{name}s = [...]" if name in ("seed", "partition", "model") else None
            raise ConfigError(f"option {name!r} is set by the comparison", wanted=wanted, where=where)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
