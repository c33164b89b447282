"""`pemn baseline` and `pemn init`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pemn.artifact import Artifact
from pemn.cli import main
from pemn.commands.train import baseline
from pemn.errors import ConfigError
from pemn.training import checkpoint
from pemn.training.epochs import Training

SMALL = ["--model", "mlp-24-16", "--epochs", "3", "--num-images", "300", "--threads", "1"]
NUM_WEIGHTS = 64 * 24 + 24 * 16 + 16 * 10


def run(folder: Path, *options: str) -> dict[str, Any]:
    assert baseline([*options, *SMALL, "--run-dir", str(folder)]) == 0
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


@pytest.mark.parametrize("how", ["random", "magnitude"])
def test_it_keeps_what_fits_and_says_the_rule(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(tmp_path, how, "--compression-ratio", "80")
    kept = summary["num_kept"]
    assert 0.19 * NUM_WEIGHTS < kept <= 0.2 * NUM_WEIGHTS - 2
    assert summary["bytes"] == {"weights": 4 * kept, "positions": 8, "floats": 0}
    assert summary["total_bytes"] == 4 * kept + 8
    assert summary["weight_compression_ratio"] == 100 * (1 - (4 * kept + 8) / (4 * NUM_WEIGHTS))
    told = capsys.readouterr().out
    assert (
        f"{how}: {kept:,} of {NUM_WEIGHTS:,} weights left. Size: {4 * kept:,} bytes of weights, 4 each"
        in told
    )
    assert summary["epochs"][-1]["loss"] < summary["epochs"][0]["loss"]
    tensors, _ = checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert (
        sum(
            int(tensor.sum())
            for name, tensor in tensors.items()
            if name.startswith("module/") and "kept" in name
        )
        == kept
    )


def test_a_size_is_of_all_bytes(tmp_path: Path) -> None:
    summary = run(tmp_path, "random", "--size", "1000", "--positions", "bitmap")
    assert 970 < summary["total_bytes"] <= 1000
    assert summary["bytes"]["positions"] == NUM_WEIGHTS // 8


@pytest.mark.parametrize("options", [[], ["--size", "1000", "--compression-ratio", "90"]])
def test_one_size_is_wanted(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--compression-ratio or --size, one of them"):
        run(tmp_path, "random", *options)


def test_a_size_that_nothing_fits_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="size of a pruned network"):
        run(tmp_path / "new", "random", "--size", "10")
    with pytest.raises(ConfigError, match="as large as the whole: got 1,000,000 bytes; wanted less than"):
        run(tmp_path / "new", "random", "--size", "1000000")
    assert not (tmp_path / "new").exists()


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["magnitude", "--compression-ratio", "90"]
    whole = run(tmp_path / "whole", *options)
    epoch = Training.run_epoch

    def stop(self: Training, *arguments: Any) -> float:
        if self.num_epochs_done == 1:
            raise KeyboardInterrupt
        return epoch(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", *options)
    torch.manual_seed(9)
    parts = run(tmp_path / "parts", *options, "--resume")
    assert whole["accuracy"] == parts["accuracy"]
    assert [e["loss"] for e in whole["epochs"]] == [e["loss"] for e in parts["epochs"]]


def init(folder: Path, *options: str) -> Path:
    path = folder / "x.pemn"
    assert main(["init", "--model", "convmixer-2-16-p2", "-o", str(path), *options]) == 0
    return path


def test_an_untrained_model_has_the_sizes_that_it_will_have(tmp_path: Path) -> None:
    artifact = Artifact.from_bytes(init(tmp_path, "--strategy", "rp:0.1", "--kept", "0.25").read_bytes())
    assert artifact.mask.density == pytest.approx(0.25, abs=0.01)
    assert str(artifact.model.strategy) == "rp:0.1"
    assert artifact.model.num_floats > 0
    assert artifact.provenance["note"] == "untrained"
    assert main(["verify", str(tmp_path / "x.pemn")]) == 0


def test_the_seed_alone_makes_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = init(tmp_path, "--seed", "3").read_bytes()
    torch.manual_seed(2)
    assert init(tmp_path, "--seed", "3").read_bytes() == one
    assert init(tmp_path, "--seed", "4").read_bytes() != one


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--input", "3x32"], "shape of an image: got 3x32; wanted such as 3x32x32; in --input"),
        (["--input", "3x0x32"], "shape of an image"),
        (["--classes", "0"], "classes: got 0"),
        (["--seed", "-1"], "seed: got -1"),
        (["--values", "cauchy"], "values: got cauchy"),
        (["--strategy", "rp:2"], "unknown strategy"),
        (["--kept", "2"], "share that is kept: got 2.0; wanted above 0, at most 1; in --kept"),
        (["--model", "nonsense"], "unknown architecture"),
    ],
)
def test_wrong_options_of_init_leave_no_file(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pemn"
    assert main(["init", "--model", "convmixer-2-16-p2", "-o", str(path), *options]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_pruned_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="what is pruned is given twice: got random and --how"):
        run(tmp_path / "new", "random", "--how", "magnitude", "--compression-ratio", "90")
