"""`pemn train`: what it leaves, and that a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pemn.artifact import Artifact
from pemn.commands.train import baseline, train
from pemn.commands.train_settings import TrainSettings
from pemn.commands.training_run import CHECKPOINT_NAME, Run, _load_splits, load_split
from pemn.config import resolve
from pemn.data.datasets import load
from pemn.device.model import Model
from pemn.errors import ConfigError, DataError, FileError
from pemn.training.epochs import Training

SMALL = ["--model", "mlp-24-16", "--epochs", "3", "--num-images", "300", "--threads", "1"]


def run(folder: Path, *options: str) -> dict[str, Any]:
    assert train([*SMALL, "--run-dir", str(folder), *options]) == 0
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_it_leaves_a_model_that_predicts_as_measured(tmp_path: Path) -> None:
    summary = run(tmp_path, "--strategy", "rp:0.05", "--batch-size", "16")
    test = load("digits", None, "test")
    for name in ("model.pemn", "model.onnx"):
        logits = Model.load(tmp_path / name).predict(test.images)
        assert np.mean(logits.argmax(1) == test.labels) == summary["accuracy"]["last_epoch"]
        assert (tmp_path / name).stat().st_size == summary["bytes"][name]
    artifact = Artifact.from_bytes((tmp_path / "model.pemn").read_bytes())
    assert str(artifact.model.distribution) == "normal"
    assert artifact.mask.num_kept == sum(n - int(0.5 * n) for n in artifact.model.sizes)
    assert summary["unique_values"] == int(24 * 64 * 0.05) + 1
    assert [epoch["epoch"] for epoch in summary["epochs"]] == [1, 2, 3]
    assert summary["accuracy"]["best_on_validation"]["validation"] == max(
        epoch["validation"] for epoch in summary["epochs"]
    )
    assert summary["accuracy"]["last_epoch"] > 0.5
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize(
    "options",
    [
        ["--scores", "bernoulli", "--optimizer", "adamw"],
        ["--strategy", "dense", "--optimizer", "sgd", "--learning-rate", "0.1"],
        ["--model", "vit-1-16", "--preset", "paper", "--learning-rate", "0.01", "--num-images", "60"],
        ["--model", "convmixer-1-8", "--augmentation", "paper-convmixer", "--half", "--num-images", "60"],
    ],
    ids=["bernoulli", "dense", "vit with dropout", "convmixer with batch norm"],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "vit-1-16" in options or "convmixer-1-8" in options:
        options = [*options, "--dataset", "folder:16", "--data-dir", str(coloured(tmp_path / "data"))]
    whole = run(tmp_path / "whole", *options)
    epoch = Training.run_epoch

    def stop(self: Training, *arguments: Any) -> float:
        if self.num_epochs_done == 2:
            raise KeyboardInterrupt
        return epoch(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", *options)
    torch.manual_seed(99)  # another process has other generators
    parts = run(tmp_path / "parts", *options, "--resume")
    for one in (whole, parts):
        del one["seconds"]
        for entry in one["epochs"]:
            del entry["seconds"]
    assert parts == whole
    names = ["model.pemn", "model.onnx"] if "dense" not in options else []
    for name in names:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def coloured(folder: Path) -> Path:
    from PIL import Image

    random = np.random.default_rng(1)
    for split, count in (("train", 40), ("test", 10)):
        for label, tint in enumerate(((200, 60, 60), (60, 60, 200))):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(random.normal(tint, 60, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def test_the_papers_recipe_is_in_half_precision_where_the_paper_was() -> None:
    def in_half(*options: str) -> list[bool]:
        words = ["--run-dir", "x", *options]
        settings = resolve(TrainSettings, words, prog="pemn train", env_prefix="NONE_").settings
        return [settings.in_half(kind) for kind in ("cpu", "cuda")]

    assert in_half() == [False, False]
    assert in_half("--preset", "paper") == [False, True]
    assert in_half("--half") == [True, True]


def test_floats_go_into_the_model(tmp_path: Path) -> None:
    data = ["--dataset", "folder:16", "--data-dir", str(coloured(tmp_path / "data")), "--num-images", "60"]
    summary = run(tmp_path / "run", "--model", "convmixer-1-8", *data)
    artifact = Artifact.from_bytes((tmp_path / "run/model.pemn").read_bytes())
    assert summary["num_floats"] == artifact.model.num_floats == 3 * 4 * 8
    test = load("folder:16", tmp_path / "data", "test")
    for name in ("model.pemn", "model.onnx"):
        logits = Model.load(tmp_path / "run" / name).predict(test.images)
        assert np.mean(logits.argmax(1) == test.labels) == summary["accuracy"]["last_epoch"]


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ConfigError, match="resuming with another option: got 4; wanted 3; in --epochs"):
        run(tmp_path, "--resume", "--epochs", "4")
    with pytest.raises(ConfigError, match="results of another run"):
        run(tmp_path)


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no checkpoint to go on from"):
        run(tmp_path, "--resume")
    run(tmp_path / "a")
    path = tmp_path / "a" / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match="damaged checkpoint"):
        run(tmp_path / "a", "--resume")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--strategy", "rp:2"], "unknown strategy: got 'rp:2'; wanted full, .*RATIO <= 1, or dense"),
        (["--scores", "topk:0"], "unknown score rule"),
        (["--model", "resnet-7"], "resnet"),
        (["--num-images", "100000"], "training images: got 100000; wanted at most"),
        (["--preset", "paper"], "no recipe in the paper"),
        (["--dense-layers", "tail.*"], "pattern that matches no parameter"),
        (["--strategy", "dense", "--optimizer", "sgd", "--learning-rate", "1e30"], "training diverged"),
    ],
)
def test_wrong_options_are_told(options: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        run(tmp_path / "run", *options)


def test_spellings_of_one_strategy_are_one(tmp_path: Path) -> None:
    run(tmp_path, "--strategy", "rp:1e-2")
    run(tmp_path, "--strategy", "rp:0.010", "--scores", "topk:.5", "--resume")


def test_other_images_are_refused(tmp_path: Path) -> None:
    data = coloured(tmp_path / "data")
    options = ["--model", "mlp-8", "--dataset", "folder:16", "--data-dir", str(data), "--num-images", "60"]
    run(tmp_path / "run", *options)
    for image in (data / "train").rglob("*.png"):
        Image.new("RGB", (16, 16), (1, 2, 3)).save(image)
    with pytest.raises(ConfigError, match=r"resuming with another option: .*; in the training images"):
        run(tmp_path / "run", *options, "--resume")


def test_another_kind_of_run_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(
        ConfigError, match="resuming another kind of run: got pemn baseline; wanted pemn train"
    ):
        baseline(["random", "--size", "900", *SMALL, "--run-dir", str(tmp_path), "--resume"])


def test_a_network_that_cannot_be_exported_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Branching(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(64, 10, bias=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(images.flatten(1))
            return logits if logits.sum() > 0 else -logits

    module = ModuleType("their_networks")
    module.make = lambda shape, classes: Branching()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    capfd.readouterr()
    with pytest.raises(
        ConfigError, match=r"network that torch cannot export: got .*in their_networks:make"
    ) as caught:
        run(tmp_path / "new", "--model", "their_networks:make")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "new").exists()


def test_a_test_split_of_other_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def images(split: str, data_dir: object) -> tuple[object, object, tuple[str, ...]]:
        names = ("cat", "dog") if split == "train" else ("dog", "cat")
        return np.zeros((40, 1, 4, 4), np.uint8), np.arange(40) % 2, names

    module = ModuleType("their_data")
    module.images = images  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(DataError, match="images and classes of the test split"):
        run(tmp_path / "new", "--dataset", "their_data:images", "--num-images", "40")


def test_held_out_images_are_no_training_images(tmp_path: Path) -> None:
    options = [*SMALL, "--run-dir", str(tmp_path), "--validation", "0.2"]
    settings = resolve(TrainSettings, options, prog="pemn train", env_prefix="PEMN_TRAIN_").settings
    splits, _ = _load_splits(settings, torch.device("cpu"), load_split)
    rows = {name: {image.tobytes() for image in split.pixels.numpy()} for name, split in splits.items()}
    assert (len(splits["train"]), len(splits["validation"])) == (240, 60)
    assert not rows["train"] & rows["validation"]
    assert len(splits["test"]) == len(load("digits", None, "test").labels)


def test_an_empty_folder_name_is_not_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="empty name of a folder"):
        train([*SMALL, "--run-dir", ""])
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no checkpoint to go on from: wanted .* no --resume"):
        run(tmp_path / "new", "--resume")


def test_a_few_images_leave_one_for_validation(tmp_path: Path) -> None:
    summary = run(tmp_path, "--num-images", "5", "--epochs", "1")
    assert summary["num_images"] == 4
    assert "best_on_validation" in summary["accuracy"]


def test_the_best_epoch_is_the_first_of_the_best_and_is_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = iter([0.2, 0.7, 0.7, 0.3])
    seen: list[float] = []

    def accuracy(self: Run, split: str) -> float:
        state = sum(float(tensor.double().sum()) for tensor in self._module.state_dict().values())
        if split == "validation":
            seen.append(state)
            return next(validation)
        return state

    monkeypatch.setattr(Run, "_accuracy", accuracy)
    found = run(tmp_path, "--epochs", "4")["accuracy"]
    assert len(set(seen)) == 4
    assert found["last_epoch"] == seen[3]
    assert found["best_on_validation"] == {"epoch": 2, "validation": 0.7, "test": seen[1]}
