"""`pemn train`: a masked network, or an ordinary one to compare with, on one machine."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

import pemn
from pemn.commands.train_settings import DENSE, TrainSettings
from pemn.config import resolve
from pemn.data.dataset import Dataset
from pemn.data.datasets import input_contract, load
from pemn.errors import ConfigError, FileError
from pemn.export.packed import packed
from pemn.files import SUMMARY_NAME, prepare_run_dir, write_atomic
from pemn.generator import Purpose, child, permutation
from pemn.packaging import package
from pemn.prototype import Strategy
from pemn.spec import InputContract, ModelSpec
from pemn.training import checkpoint
from pemn.training.epochs import Images, Training, evaluate
from pemn.training.local import choose_device, set_threads
from pemn.training.masked import mask_model
from pemn.training.models import model_spec
from pemn.training.networks import build
from pemn.training.scores import ScoreRule

CHECKPOINT_NAME = "checkpoint.safetensors"
_BEST = "best/"
_VALIDATION, _TEST = "validation", "test"


def train(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        PemnError: If options, data or files are wrong, or training diverges.
    """
    settings = resolve(TrainSettings, arguments, prog="pemn train", env_prefix="PEMN_TRAIN_").settings
    recipe = settings.recipe
    device = choose_device(settings.device)
    set_threads(settings.threads, num_processes=1)
    splits, contract = _load_splits(settings, device)
    run = _Run(settings, splits, contract, device)
    if settings.resume:
        run.go_on()
    else:
        prepare_run_dir(settings.run_dir)
        if (settings.run_dir / CHECKPOINT_NAME).exists():
            raise ConfigError("the folder holds a run", wanted="--resume, or another", where=settings.run_dir)
    console = Console(highlight=False)
    console.print(
        f"{settings.model}, {settings.strategy}: {run.num_masked:,} masked weights, {run.num_floats:,} floats; "
        f"{len(splits['train']):,} images, {recipe.epochs} epochs on {device}",
        soft_wrap=True,
    )
    run.train(console)
    for line in _describe(run.write_results()):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"results in {settings.run_dir}/", markup=False, soft_wrap=True)
    return 0


class _Run:
    """A run's module, what it has come to, and the folder that it is kept in."""

    def __init__(
        self,
        settings: TrainSettings,
        splits: dict[str, Images],
        contract: InputContract,
        device: torch.device,
    ) -> None:
        self._settings, self._splits, self._folder = settings, splits, settings.run_dir
        # Floats and dense weights begin as torch has them.
        torch.manual_seed(child(settings.seed, Purpose.SCORES) >> 1)
        self._module = build(settings.model, contract.shape, len(contract.class_names)).to(device)
        self._spec: ModelSpec | None = None
        if settings.strategy != DENSE:
            strategy = Strategy.parse(settings.strategy)
            self._spec = model_spec(
                settings.model, contract, settings.seed, strategy, settings.init, settings.rules
            )
            mask_model(self._module, self._spec, ScoreRule.parse(settings.scores))
        self._training = Training(
            self._module, settings.recipe, splits["train"], settings.seed, half=settings.half
        )
        self._epochs: list[dict[str, float]] = []
        self._best: dict[str, Any] | None = None

    @property
    def num_masked(self) -> int:
        """Masked weights."""
        return self._spec.num_params if self._spec else 0

    @property
    def num_floats(self) -> int:
        """Floats that are trained or measured."""
        state = self._module.state_dict().values()
        num_floating: int = sum(tensor.numel() for tensor in state if tensor.is_floating_point())
        return num_floating - self.num_masked

    def go_on(self) -> None:
        """Takes the run up where its checkpoint has it.

        Raises:
            ConfigError: If it is the checkpoint of other options.
            FileError: If there is none, or it cannot be read.
        """
        path = self._folder / CHECKPOINT_NAME
        tensors, facts = checkpoint.load(path)
        self._settings.check_resumable(facts["settings"])
        best = {name.removeprefix(_BEST): tensors.pop(name) for name in [*tensors] if name.startswith(_BEST)}
        try:
            self._training.load_state(tensors, len(facts["epochs"]))
        except (RuntimeError, KeyError, ValueError) as error:  # torch says which tensor
            raise FileError(f"checkpoint of another network, {error!s:.200}", where=path) from error
        self._epochs = facts["epochs"]
        if best:
            self._best = {**facts["best"], "module": best}

    def train(self, console: Console) -> None:
        """Runs the epochs that are left; after each the run is on the disk."""
        recipe, training = self._settings.recipe, self._training
        writer = SummaryWriter(str(self._folder / "tensorboard"), write_to_disk=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            total = recipe.epochs * training.num_steps
            task = bar.add_task(
                "training", total=total, completed=training.num_epochs_done * training.num_steps
            )
            while training.num_epochs_done < recipe.epochs:
                began = time.monotonic()
                loss = training.run_epoch(lambda _: bar.advance(task))
                epoch = {"epoch": training.num_epochs_done, "loss": loss, "seconds": time.monotonic() - began}
                if _VALIDATION in self._splits:
                    epoch[_VALIDATION] = evaluate(self._module, self._splits[_VALIDATION])
                    self._keep_best(epoch)
                self._epochs.append(epoch)
                self._save()
                for name in ("loss", _VALIDATION):
                    if name in epoch:
                        writer.add_scalar(name, epoch[name], epoch["epoch"])
                left = (recipe.epochs - training.num_epochs_done) * epoch["seconds"]
                console.print(_line(epoch, recipe.epochs, left), markup=False, soft_wrap=True)
        writer.close()

    def write_results(self) -> dict[str, Any]:
        """Writes the model and the summary, and returns the summary."""
        last = evaluate(self._module, self._splits[_TEST])
        summary: dict[str, Any] = {
            "settings": self._settings.identity(),
            "recipe": asdict(self._settings.recipe),
            "accuracy": {"last_epoch": last},
            "num_floats": self.num_floats,
            "seconds": sum(epoch["seconds"] for epoch in self._epochs),
            "epochs": self._epochs,
        }
        if self._spec:
            provenance = {
                "pemn": pemn.__version__,
                "dataset": self._settings.dataset,
                "epochs": str(self._training.num_epochs_done),
                "scores": self._settings.scores,
            }
            artifact = package(self._module, self._spec, provenance)
            data = {"model.pemn": artifact.to_bytes(), "model.onnx": packed(artifact)}
            for name, content in data.items():
                write_atomic(self._folder / name, content)
            summary |= {
                "num_masked": self._spec.num_params,
                "unique_values": self._spec.unique_values,
                "density": artifact.mask.density,
                "bytes": {name: len(content) for name, content in data.items()},
                "weights_sha256": artifact.weights_sha256.hex(),
            }
        if self._best:
            self._module.load_state_dict(self._best["module"])
            summary["accuracy"]["best_on_validation"] = {
                "epoch": self._best["epoch"],
                "validation": self._best["validation"],
                "test": evaluate(self._module, self._splits[_TEST]),
            }
        write_atomic(self._folder / SUMMARY_NAME, (json.dumps(summary, indent=1) + "\n").encode())
        return summary

    def _keep_best(self, epoch: dict[str, float]) -> None:
        if self._best is None or epoch[_VALIDATION] > self._best["validation"]:
            state = {
                name: tensor.detach().cpu().clone() for name, tensor in self._module.state_dict().items()
            }
            self._best = {"epoch": epoch["epoch"], "validation": epoch[_VALIDATION], "module": state}

    def _save(self) -> None:
        tensors = self._training.state()
        facts: dict[str, Any] = {"settings": self._settings.identity(), "epochs": self._epochs}
        if self._best:
            tensors |= {_BEST + name: tensor for name, tensor in self._best["module"].items()}
            facts["best"] = {name: self._best[name] for name in ("epoch", "validation")}
        write_atomic(self._folder / CHECKPOINT_NAME, checkpoint.to_bytes(tensors, facts))


def _load_splits(settings: TrainSettings, device: torch.device) -> tuple[dict[str, Images], InputContract]:
    """Returns `train`, `test` and, if images are held out, `validation`."""
    data = load(settings.dataset, settings.data_dir, "train")
    contract = input_contract(settings.dataset, data)
    order = permutation(child(settings.seed, Purpose.SPLIT), len(data.labels))
    if settings.num_images is not None and settings.num_images > len(order):
        raise ConfigError("training images", got=settings.num_images, wanted=f"at most {len(order)}")
    order = order[: settings.num_images]
    num_held_out = int(len(order) * settings.validation)
    splits = {"train": _images(data, np.sort(order[num_held_out:]), contract, device)}
    if num_held_out:
        splits[_VALIDATION] = _images(data, np.sort(order[:num_held_out]), contract, device)
    test = load(settings.dataset, settings.data_dir, "test")
    splits[_TEST] = _images(test, np.arange(len(test.labels)), contract, device)
    return splits, contract


def _images(
    data: Dataset, chosen: NDArray[np.int64], contract: InputContract, device: torch.device
) -> Images:
    pixels, labels = torch.from_numpy(data.images[chosen]), torch.from_numpy(data.labels[chosen])
    return Images(pixels.to(device), labels.to(device), contract.mean, contract.std)


def _line(epoch: dict[str, float], num_epochs: int, seconds_left: float) -> str:
    held_out = f"  validation {epoch[_VALIDATION]:.4f}" if _VALIDATION in epoch else ""
    left = f"  about {seconds_left / 60:.0f} min left" if seconds_left > 90 else ""
    return f"epoch {epoch['epoch']:>3}/{num_epochs}  loss {epoch['loss']:.4f}{held_out}{left}"


def _describe(summary: dict[str, Any]) -> list[str]:
    accuracy = summary["accuracy"]
    lines = [f"test accuracy {accuracy['last_epoch']:.4f} after the last epoch"]
    if best := accuracy.get("best_on_validation"):
        lines.append(
            f"test accuracy {best['test']:.4f} after epoch {best['epoch']}, the best on the validation images"
        )
    if "bytes" in summary:
        sizes = ", ".join(f"{name} {size:,} bytes" for name, size in summary["bytes"].items())
        lines.append(f"{sizes}; {summary['unique_values']:,} unique values, {summary['density']:.1%} kept")
    return lines
