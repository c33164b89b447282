"""`make demo`: what the README promises of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/demo"


def test_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert (
        len(
            re.findall(
                r"^round +\d+/20 .*clients 3/3 .*accuracy 0\.\d+ .*up .*down .*times fewer", done.stdout, re.M
            )
        )
        == 20
    )
    folder = tmp_path / "runs/demo"
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert {"model.pemn", "model.onnx", "summary.json", "ledger.jsonl", "report.html"} <= names
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["wire_source"] == "socket"
    assert summary["accuracy"] >= 0.95
    assert summary["saving"] >= 60
    shown = re.search(r"whole test split: (\d+) of (\d+)", done.stdout)
    assert shown is not None
    assert int(shown[1]) / int(shown[2]) == summary["accuracy"]
    assert "truth" in done.stdout


def test_the_demo_ends_when_a_client_fails(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--dataset", "cifar10", "--data-dir", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert "pemn-server: error: " in done.stderr
    assert "nowhere" in done.stderr
