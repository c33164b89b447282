"""`pemn figures`: a whole small grid, stopped and gone on with."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pemn.commands.figures import figures
from pemn.errors import ConfigError, DataError, FileError
from pemn.report.published import PUBLISHED, RATIOS, nearest
from pemn.training.epochs import Training

SMALL = [
    *("--model", "mlp-12", "--rescale", "--epochs", "1", "--num-images", "200", "--threads", "1"),
    *(
        "--strategies",
        "dense,full,rp:1e-2",
        "--baselines",
        "magnitude",
        "--ratios",
        "80,95",
        "--num-seeds",
        "2",
    ),
]
PNG = b"\x89PNG\r\n\x1a\n"


def run(folder: Path, *options: str) -> list[dict[str, str]]:
    assert figures([*SMALL, "--run-dir", str(folder), *options]) == 0
    with (folder / "figures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures") / "whole"
    run(folder, "--seed", "4")
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "figures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_every_run(whole: Path) -> None:
    rows = rows_of(whole)
    wanted = ["dense", "full", "rp:0.01", "magnitude", "magnitude"]
    assert [(row["setting"], row["seed"]) for row in rows] == [
        (name, seed) for seed in "45" for name in wanted
    ]
    by_name = {(row["setting"], row["percent"]): row for row in rows}
    num_weights = 64 * 12 + 12 * 10
    assert (
        by_name["dense", ""]["total_bytes"] == str(4 * num_weights) == by_name["dense", ""]["float32_bytes"]
    )
    assert by_name["full", ""]["unique_values"] == str(num_weights)
    assert by_name["rp:0.01", ""]["unique_values"] == str(int(64 * 12 * 0.01) + 1)
    for percent in ("80.0", "95.0"):
        row = by_name["magnitude", percent]
        assert float(row["weight_compression_ratio"]) == pytest.approx(float(percent), abs=0.7)
    for row in rows:
        assert 0 < float(row["accuracy"]) < 1
        name = row["setting"].replace(":", "-") + (f"-{row['percent']}" if row["percent"] else "")
        folder = whole / "runs" / f"{name}_{row['seed']}"
        assert "test accuracy" not in (folder / "log.txt").read_text()  # that is in the summary
        assert "epoch   1/1" in (folder / "log.txt").read_text()


def test_both_figures_are_drawn_twice(whole: Path) -> None:
    for name in ("unique-values", "compression"):
        assert (whole / f"{name}.png").read_bytes().startswith(PNG)
        text = " ".join(ET.fromstring((whole / f"{name}.svg").read_text()).itertext())
        assert "mlp-12, mean of 2 seeds" in text
        assert "published" not in text  # digits are not in the paper
        assert "pruned at random" not in text  # nor was that trained
    assert "RP 1e-2: 8" in " ".join(
        " ".join(ET.fromstring((whole / "unique-values.svg").read_text()).itertext()).split()
    )


def test_only_what_is_missing_is_trained_again(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    shutil.copytree(whole, folder)
    before = rows_of(folder)
    shutil.rmtree(folder / "runs" / "full_4")
    (folder / "runs" / "dense_5" / "summary.json").unlink()  # its checkpoint is there
    with pytest.raises(ConfigError, match="the folder holds runs: wanted --resume"):
        run(folder, "--seed", "4")
    capsys.readouterr()
    assert without_times(run(folder, "--seed", "4", "--resume", "--jobs", "2")) == without_times(before)
    told = capsys.readouterr().out
    assert "8 of 10 runs are done already" in told
    assert told.count("test accuracy") == 2


def test_runs_with_other_options_are_refused(whole: Path) -> None:
    with pytest.raises(
        ConfigError, match="resuming with another option: got 150; wanted 200; in --num-images"
    ):
        run(whole, "--seed", "4", "--resume", "--num-images", "150")


def test_a_summary_that_is_none_is_told(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(whole, folder)
    (folder / "runs" / "full_5" / "summary.json").write_text("{}")
    with pytest.raises(FileError, match="no summary of a run"):
        run(folder, "--seed", "4", "--resume")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--strategies", "rp:2"], "unknown strategy"),
        (["--strategies", ""], "nothing to train"),
        (["--baselines", "lottery"], "baseline: got lottery; wanted random or magnitude"),
        (["--ratios", "90,100"], "compression ratio: got 100"),
        (["--ratios", "most"], "compression ratio: got most"),
        (["--strategies", "mp,mp"], "the same run twice: got mp_0"),
        (["--strategies", "rp:1e-2,rp:0.01"], "the same run twice: got rp-0.01_0"),
        (["--seed", str(2**64 - 1)], "last seed: got 18446744073709551616"),
        (
            ["--published", "vit-6-256"],
            "published points: got vit-6-256; wanted another data set than digits",
        ),
        (
            ["--dataset", "cifar10", "--published", "mlp-12"],
            "published points: got mlp-12; wanted convmixer-6-256",
        ),
    ],
)
def test_wrong_options_are_told_before_anything_is_trained(
    options: list[str], told: str, tmp_path: Path
) -> None:
    if told == "nothing to train":
        options = [*options, "--baselines", ""]
    with pytest.raises(ConfigError, match=told):
        run(tmp_path / "new", *options)
    assert not (tmp_path / "new").exists()


def test_what_fails_in_a_process_of_its_own_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="8 of 10 runs failed, the first: pattern that matches no parameter"
    ):
        run(tmp_path, "--dense-layers", "tail.*", "--jobs", "2")


def test_a_run_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epoch = Training.run_epoch

    def diverge(self: Training, *arguments: Any) -> float:
        if any(name.endswith("kept") for name, _ in self.module.named_buffers()):
            raise ConfigError("training diverged")
        return epoch(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", diverge)
        with pytest.raises(ConfigError, match="4 of 10 runs failed, the first: training diverged"):
            run(tmp_path)
    assert "magnitude 80 %, seed 0: failed: training diverged" in capsys.readouterr().out
    assert len(run(tmp_path, "--resume")) == 10
    assert "6 of 10 runs are done already" in capsys.readouterr().out


def test_the_published_points() -> None:
    assert nearest("convmixer-4-64", "cifar10") == "convmixer-6-256"
    assert nearest("vit-8-512", "cifar10") == "vit-8-512"
    assert nearest("resnet-20", "cifar100") == "resnet-32"
    assert nearest("mlp-12", "cifar10") is None
    for data in PUBLISHED.values():
        assert {"dense", "mp"} <= data.by_strategy.keys()
        assert data.ratios.keys() <= data.by_strategy.keys()
        assert all(len(accuracies) == len(RATIOS) for accuracies in data.pruned.values())
    ours = PUBLISHED["convmixer-6-256", "cifar10"]
    assert ours.by_strategy["rp:0.001"] == 88.51  # Figure 3 of the paper
    assert ours.pruned["random"][3] == 76.8


def test_ctrl_c_ends_all_processes_at_once(tmp_path: Path) -> None:
    """Long runs: what is left is whole, and nothing but one line is said."""
    command = [sys.executable, "-m", "pemn.cli", "figures", *SMALL, "--epochs", "4000", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, "--run-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A parent in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    began = time.monotonic()
    while not list(tmp_path.glob("runs/*/checkpoint.safetensors")):
        assert time.monotonic() - began < 120
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "pemn: stopped\n")


def test_data_that_are_not_there_are_told_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown data set"):
        run(tmp_path / "new", "--dataset", "unheard-of")
    assert not (tmp_path / "new").exists()
