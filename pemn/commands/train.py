"""`pemn train` and `pemn baseline`: a masked network, or another to compare with, on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pemn.commands.train_settings import BaselineSettings, RunSettings, TrainSettings
from pemn.commands.training_run import Run
from pemn.config import resolve
from pemn.errors import ConfigError
from pemn.training.device import set_threads


def train(arguments: Sequence[str]) -> int:
    """Runs `pemn train`.

    Raises:
        PemnError: If options, data or files are wrong, or training diverges.
    """
    return _run(resolve(TrainSettings, arguments, prog="pemn train", env_prefix="PEMN_TRAIN_").settings)


def baseline(arguments: Sequence[str]) -> int:
    """Runs `pemn baseline`; its first argument may say what is pruned.

    Raises:
        PemnError: If options, data or files are wrong, or training diverges.
    """
    if arguments and not arguments[0].startswith("-"):
        if "--how" in arguments:
            raise ConfigError("what is pruned is given twice", got=f"{arguments[0]} and --how")
        arguments = ["--how", *arguments]
    settings = resolve(
        BaselineSettings, arguments, prog="pemn baseline [random|magnitude]", env_prefix="PEMN_BASELINE_"
    ).settings
    return _run(settings)


def _run(settings: RunSettings) -> int:
    set_threads(settings.threads, num_processes=1)
    console = Console(highlight=False)
    run = Run(settings, console)
    run.train()
    for line in (*_describe(run.write_results()), f"results in {settings.run_dir}/"):
        console.print(line, markup=False, soft_wrap=True)
    return 0


def _describe(summary: dict[str, Any]) -> list[str]:
    accuracy = summary["accuracy"]
    lines = [f"test accuracy {accuracy['last_epoch']:.4f} after the last epoch"]
    if best := accuracy.get("best_on_validation"):
        lines.append(
            f"test accuracy {best['test']:.4f} after epoch {best['epoch']}, the best on the validation images"
        )
    epochs = len(summary["epochs"])
    sizes = ", ".join(f"{name} {size:,} bytes" for name, size in summary["bytes"].items())
    kept = f"; {summary['density']:.1%} of the weights kept" if "density" in summary else ""
    of_epoch = f", of epoch {epochs}" if "weights_sha256" in summary else ""
    lines.append(f"{sizes}{of_epoch}{kept}; {summary['compression_ratio']:.2f} % saved against float32")
    return lines
