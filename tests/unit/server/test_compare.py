"""`pemn-server compare` and `report`: what is run, what is resumed, what is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from pemn.errors import ConfigError, DataError, FileError
from pemn_server import cli
from pemn_server.compare import Comparison, compare, report
from pemn_server.settings import CompareSettings

CONFIG = """
title = "Small"
seeds = [3, 4]
models = ["mlp-8"]
partitions = ["iid", "dirichlet:1"]
rounds = 2
epochs = 1
clients = 3
threads = 1
[methods.mask]
[methods."stc, a tenth"]
method = "stc"
share = 0.1
seeds = [3]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def _compare(config: Path, folder: Path, *, resume: bool = False, jobs: int = 1) -> str:
    told = io.StringIO()
    settings = CompareSettings(run_dir=folder, resume=resume, jobs=jobs)
    compare(settings, config, Console(file=told, width=200))
    return told.getvalue()


def test_every_method_runs_with_every_seed_and_split(config: Path, tmp_path: Path) -> None:
    told = _compare(config, tmp_path / "out")
    assert "6 runs, 0 of them done already" in told
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/comparison.csv").read_text())))
    assert [(row["label"], row["partition"], row["seed"]) for row in rows] == [
        (label, partition, seed)
        for partition in ("iid", "dirichlet:1.0")
        for label, seed in (("mask", "3"), ("mask", "4"), ("stc, a tenth", "3"))
    ]
    # Resumed, it does nothing anew and comes to the same.
    before = (tmp_path / "out/comparison.csv").read_bytes()
    with pytest.raises(ConfigError, match="the folder holds runs"):
        _compare(config, tmp_path / "out")
    assert "6 of them done already" in _compare(config, tmp_path / "out", resume=True)
    assert (tmp_path / "out/comparison.csv").read_bytes() == before
    # A page of one run, and of some of them side by side.
    runs = sorted((tmp_path / "out/runs").rglob("seed-3"))
    page = report(runs[:1], None, None, None)
    assert page == runs[0] / "report.html"
    assert "Sent by clients" in page.read_text()
    both = report(runs[:2], tmp_path / "two", "Two", 0.5)
    assert both.parent == tmp_path / "two"
    assert "<title>Two</title>" in both.read_text()
    again = report([tmp_path / "out"], None, None, None)
    assert "<title>Small</title>" in again.read_text()
    assert (tmp_path / "out/comparison.csv").read_bytes() == before


def test_a_run_that_was_stopped_goes_on_and_others_are_left_alone(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace('"iid", "dirichlet:1"', '"iid"'))
    _compare(config, tmp_path / "out")
    whole = (tmp_path / "out/rounds.csv").read_bytes()
    run = tmp_path / "out/runs/mask/iid/mlp-8/seed-4"
    for name in ("summary.json", "checkpoint.safetensors"):  # as if killed in its first round
        (run / name).unlink()
    other = (tmp_path / "out/runs/mask/iid/mlp-8/seed-3/ledger.jsonl").stat().st_mtime_ns
    assert "2 of them done already" in _compare(config, tmp_path / "out", resume=True, jobs=2)
    assert (tmp_path / "out/rounds.csv").read_bytes() == whole
    assert (tmp_path / "out/runs/mask/iid/mlp-8/seed-3/ledger.jsonl").stat().st_mtime_ns == other
    config.write_text(config.read_text().replace("epochs = 1", "epochs = 2"))
    with pytest.raises(ConfigError, match="resuming with another option: got 2; wanted 1"):
        _compare(config, tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("rounds = 2", "rouns = 2"), "unknown key 'rouns', did you mean rounds?"),
        (("rounds = 2", "rounds = 0"), "option rounds"),
        (("rounds = 2", "seed = 2"), "wanted seeds = "),
        (("share = 0.1", "resume = true"), "set by the comparison"),
        (("seeds = [3]", "seeds = 3"), "seeds: got 3; wanted a list"),
        (("seeds = [3, 4]", "seeds = []"), "seeds: List should have at least 1 item"),
        (("seeds = [3, 4]", 'seeds = ["a"]'), "seeds.0"),
        (('method = "stc"', 'method = "sct"'), "wrong value of option method"),
        (("[methods.mask]", '[methods."stc; a tenth"]\nmethod = "stc"'), "differ in punctuation alone"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_run(
    config: Path, tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    config.write_text(CONFIG.replace(*change))
    with pytest.raises(ConfigError, match=complaint):
        _compare(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_leaves_the_others(config: Path, tmp_path: Path) -> None:
    config.write_text(
        CONFIG.replace('"iid", "dirichlet:1"', '"iid"').replace("share", "data-dir='/nowhere'\n#")
    )
    config.write_text(config.read_text() + 'dataset = "cifar10"\n')
    with pytest.raises(DataError, match="1 of 3 runs failed"):
        _compare(config, tmp_path / "out")
    comparison = Comparison.of(tmp_path / "out")
    done = [run for run in comparison.runs if run.run_dir and (run.run_dir / "summary.json").exists()]
    assert len(done) == 2
    assert report([tmp_path / "out"], None, None, None).exists()  # of what there is


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no finished run"):
        report([tmp_path], None, None, None)
    with pytest.raises(ConfigError, match="--out DIR"):
        report([tmp_path, tmp_path], None, None, None)


def test_the_commands_complain_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments, complaint in (
        (["compare", "--run-dir", str(tmp_path)], "the file that says what to compare is missing"),
        (["compare", str(tmp_path / "no.toml"), "--run-dir", str(tmp_path)], "cannot read the file"),
        (["report"], "required: RUN"),
    ):
        monkeypatch.setattr("sys.argv", ["pemn-server", *arguments])
        assert cli.main() == 2
        assert complaint in capsys.readouterr().err
