"""A run of central training in its folder: checkpoints, progress, results."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from pemn.commands.subjects import provenance, subject_of
from pemn.commands.train_settings import RunSettings, check_resumable
from pemn.data.dataset import Dataset
from pemn.data.datasets import Split, input_contract, load
from pemn.errors import ConfigError, DataError, FileError
from pemn.files import SUMMARY_NAME, prepare_run_dir, write_atomic
from pemn.generator import Purpose, child, permutation
from pemn.spec import InputContract
from pemn.training import checkpoint
from pemn.training.device import choose_device
from pemn.training.epochs import Images, Training, evaluate
from pemn.training.models import build_seeded

CHECKPOINT_NAME = "checkpoint.safetensors"
_BEST = "best/"
_VALIDATION, _TEST = "validation", "test"

Loader = Callable[[RunSettings, Split], Dataset]


def load_split(settings: RunSettings, split: Split) -> Dataset:
    """Returns a split of a run's data set."""
    return load(settings.dataset, settings.data_dir, split)


class Run:
    """A run's module, what it has come to, and the folder that it is kept in.

    Args:
        settings: Of the run.
        console: Where it says how it goes.
        loader: Gives its data.
        tensorboard: Whether it keeps a TensorBoard log.

    Raises:
        PemnError: If options, data or files are wrong.
    """

    def __init__(
        self,
        settings: RunSettings,
        console: Console,
        loader: Loader = load_split,
        *,
        tensorboard: bool = True,
    ) -> None:
        self._settings, self._folder, self._console = settings, settings.run_dir, console
        self._tensorboard = tensorboard
        device = choose_device(settings.device)
        self._splits, contract = _load_splits(settings, device, loader)
        self._module = build_seeded(settings.model, contract, settings.seed).to(device)
        self._subject = subject_of(settings, contract, self._module)
        kind = self._subject.prepare(self._module)
        self._training = Training(
            self._module,
            settings.recipe,
            self._splits["train"],
            settings.seed,
            half=settings.in_half(device.type),
        )
        self._epochs: list[dict[str, float]] = []
        self._best: dict[str, Any] | None = None
        self._identity = {
            **settings.identity(),
            "images_sha256": _sha256(self._splits["train"]),
            "device_type": device.type,
        }
        if settings.resume:
            self._go_on()
        else:
            prepare_run_dir(self._folder)
            if (self._folder / CHECKPOINT_NAME).exists():
                raise ConfigError("the folder holds a run", wanted="--resume, or another", where=self._folder)
        self._say(f"{settings.model}, {kind}")
        self._say(f"{len(self._splits['train']):,} images, {settings.recipe.epochs} epochs on {device}")

    def train(self) -> None:
        """Runs the epochs that are left; after each the run is on the disk."""
        recipe, training = self._settings.recipe, self._training
        log = self._open_log()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            total = recipe.epochs * training.num_steps
            task = bar.add_task(
                "training", total=total, completed=training.num_epochs_done * training.num_steps
            )
            while training.num_epochs_done < recipe.epochs:
                began = time.monotonic()
                loss = training.run_epoch(lambda _: bar.advance(task))
                epoch = {"epoch": training.num_epochs_done, "loss": loss, "seconds": time.monotonic() - began}
                if _VALIDATION in self._splits:
                    epoch[_VALIDATION] = self._accuracy(_VALIDATION)
                    self._keep_best(epoch)
                self._epochs.append(epoch)
                self._save()
                for name in ("loss", _VALIDATION):
                    if log and name in epoch:
                        log.add_scalar(name, epoch[name], epoch["epoch"])
                left = (recipe.epochs - training.num_epochs_done) * epoch["seconds"]
                self._say(_line(epoch, recipe.epochs, left))
        if log:
            log.close()

    def write_results(self) -> dict[str, Any]:
        """Writes the model and the summary, and returns the summary."""
        last = self._accuracy(_TEST)
        summary: dict[str, Any] = {
            "settings": self._identity,
            "recipe": asdict(self._settings.recipe),
            "num_images": len(self._splits["train"]),
            "accuracy": {"last_epoch": last},
            "seconds": sum(epoch["seconds"] for epoch in self._epochs),
            "epochs": self._epochs,
        }
        results = self._subject.results(
            self._module, provenance(self._settings, self._training.num_epochs_done)
        )
        for name, content in results.files.items():
            write_atomic(self._folder / name, content)
        summary |= results.facts
        if self._best:
            self._module.load_state_dict(self._best["module"])
            summary["accuracy"]["best_on_validation"] = {
                "epoch": self._best["epoch"],
                "validation": self._best["validation"],
                "test": self._accuracy(_TEST),
            }
        write_atomic(self._folder / SUMMARY_NAME, (json.dumps(summary, indent=1) + "\n").encode())
        return summary

    def _open_log(self) -> SummaryWriter | None:
        if not self._tensorboard:
            return None
        try:
            return SummaryWriter(str(self._folder / "tensorboard"), write_to_disk=True)
        except OSError as error:
            raise FileError(f"cannot write the TensorBoard log, {error}", where=self._folder) from error

    def _go_on(self) -> None:
        """Takes the run up where its checkpoint has it."""
        path = self._folder / CHECKPOINT_NAME
        tensors, facts = checkpoint.load(path)
        best = {name.removeprefix(_BEST): tensors.pop(name) for name in [*tensors] if name.startswith(_BEST)}
        try:
            check_resumable(facts["settings"], self._identity)
            self._training.load_state(tensors, len(facts["epochs"]))
            self._epochs = facts["epochs"]
            if best:
                self._best = {**facts["best"], "module": best}
        except (RuntimeError, KeyError, ValueError, TypeError) as error:  # torch says which tensor
            raise FileError(f"checkpoint of another network, {error!s:.200}", where=path) from error

    def _accuracy(self, split: str) -> float:
        # No more at once than a training step holds, for images may be large.
        return evaluate(self._module, self._splits[split], min(1000, self._settings.recipe.batch_size))

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def _keep_best(self, epoch: dict[str, float]) -> None:
        if self._best is None or epoch[_VALIDATION] > self._best["validation"]:
            state = {
                name: tensor.detach().cpu().clone() for name, tensor in self._module.state_dict().items()
            }
            self._best = {"epoch": epoch["epoch"], "validation": epoch[_VALIDATION], "module": state}

    def _save(self) -> None:
        tensors = self._training.state()
        facts: dict[str, Any] = {"settings": self._identity, "epochs": self._epochs}
        if self._best:
            tensors |= {_BEST + name: tensor for name, tensor in self._best["module"].items()}
            facts["best"] = {name: self._best[name] for name in ("epoch", "validation")}
        write_atomic(self._folder / CHECKPOINT_NAME, checkpoint.to_bytes(tensors, facts))


def _load_splits(
    settings: RunSettings, device: torch.device, loader: Loader
) -> tuple[dict[str, Images], InputContract]:
    """Returns `train`, `test` and, if images are held out, `validation`."""
    data = loader(settings, "train")
    contract = input_contract(settings.dataset, data)
    order = permutation(child(settings.seed, Purpose.SPLIT), len(data.labels))
    if settings.num_images is not None and settings.num_images > len(order):
        raise ConfigError(
            "training images", got=settings.num_images, wanted=f"at most {len(order)}", where="--num-images"
        )
    order = order[: settings.num_images]
    num_held_out = int(len(order) * settings.validation)
    if settings.validation and len(order) > 1:
        num_held_out = max(num_held_out, 1)
    splits = {"train": _images(data, np.sort(order[num_held_out:]), contract, device)}
    if num_held_out:
        splits[_VALIDATION] = _images(data, np.sort(order[:num_held_out]), contract, device)
    test = loader(settings, "test")
    here, there = ((part.images.shape[1:], part.class_names) for part in (test, data))
    if here != there:
        raise DataError(
            "images and classes of the test split", got=here, wanted=there, where=settings.dataset
        )
    splits[_TEST] = _images(test, np.arange(len(test.labels)), contract, device)
    return splits, contract


def _images(
    data: Dataset, chosen: NDArray[np.int64], contract: InputContract, device: torch.device
) -> Images:
    pixels, labels = torch.from_numpy(data.images[chosen]), torch.from_numpy(data.labels[chosen])
    return Images(pixels.to(device), labels.to(device), contract.mean, contract.std)


def _sha256(images: Images) -> str:
    digest = hashlib.sha256(images.pixels.cpu().numpy().tobytes())
    digest.update(images.labels.cpu().numpy().tobytes())
    return digest.hexdigest()


def _line(epoch: dict[str, float], num_epochs: int, seconds_left: float) -> str:
    held_out = f"  validation {epoch[_VALIDATION]:.4f}" if _VALIDATION in epoch else ""
    left = f"  about {seconds_left / 60:.0f} min left" if seconds_left > 90 else ""
    return f"epoch {epoch['epoch']:>3}/{num_epochs}  loss {epoch['loss']:.4f}{held_out}{left}"
