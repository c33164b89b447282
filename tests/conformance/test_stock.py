"""Flower's own engines come to the same model, with the same bytes, as the clients in one process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pemn.files import read_lines
from pemn_server.log import Log
from pemn_server.settings import SimulateSettings
from pemn_server.simulation import simulate
from tests.conformance.flower_site import LOOPBACK, FlowerSite

NUM_CLIENTS = 2
OPTIONS: dict[str, Any] = {
    "model": "mlp-48-33",
    "rounds": 2,
    "epochs": 1,
    "seed": 2**64 - 5,
    "threads": 1,
    "partition": "dirichlet:1.0",
    "clients": NUM_CLIENTS,
    "min_clients": NUM_CLIENTS,
}
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[simulation]'"
)


def simulated(folder: Path, **options: Any) -> Path:
    simulate(SimulateSettings(**OPTIONS | options), folder, Log(Console(quiet=True)))
    return folder


def simulated_on_ray(folder: Path, **options: Any) -> Path:
    """As a command: Ray leaves things behind in the process that has started it."""
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in (OPTIONS | options).items()]
    command = [sys.executable, "-c", "import sys; from pemn_server.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "simulate", "--engine=ray", f"--run-dir={folder}", *flags],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FlowerSite]:
    site = FlowerSite(tmp_path)
    try:
        yield site
    finally:
        site.close()


def run_config(folder: Path) -> str:
    """`seed` is a text: Flower's integers have 63 bits."""
    texts = {k: str(v) if k == "seed" else v for k, v in OPTIONS.items()} | {"run-dir": str(folder)}
    return " ".join(f"{k.replace('_', '-')}={json.dumps(v)}" for k, v in texts.items())


def assert_same(folder: Path, wanted: Path) -> None:
    """All but the bytes below the messages, which each engine has its own of."""
    summary, other = (json.loads((f / "summary.json").read_text()) for f in (folder, wanted))
    mine, theirs = (
        read_lines(f / "ledger.jsonl", max_bytes=1 << 20, what="ledger") for f in (folder, wanted)
    )
    keys = ("round", "slot", "direction", "messages", "payload", "payload_by_kind")
    sent = [[[line[key] for key in keys] for line in lines if line["messages"]] for lines in (mine, theirs)]
    assert sent[0] == sent[1]
    assert sent[0][-1][0] == summary["num_rounds"] + 1  # the last broadcast is in it
    for line in mine:
        assert line["wire"] is None
        # Two hundred bytes or so of Flower's a message, and nothing where nothing was sent.
        assert 50 * line["messages"] <= line["framed"] - line["payload"] <= 500 * line["messages"]
    for key in ("weights_sha256", "accuracy_by_round", "client_rounds", "fedavg_bytes", "density"):
        assert summary[key] == other[key], key
    for key in ("uplink_payload", "downlink_payload", "seed"):
        assert summary["bytes"][key] == other["bytes"][key]
    assert summary["wire_source"] == "framed"


def test_a_superlink_with_supernodes(site: FlowerSite, tmp_path: Path) -> None:
    site.start_superlink()
    for slot in range(NUM_CLIENTS):
        site.start_supernode(slot, NUM_CLIENTS)
    wanted = simulated(tmp_path / "wanted")
    site.run("loopback", run_config(tmp_path / "run"))
    site.wait_for(tmp_path / "run/summary.json", timeout_s=300)
    assert_same(tmp_path / "run", wanted)
    assert site.listening  # the processes' ports were seen, and nobody else can reach them
    assert site.listening <= LOOPBACK
    for slot in range(NUM_CLIENTS):  # each device with a state of its own
        assert list((tmp_path / f"store-{slot}").glob(f"state-*-{OPTIONS['rounds']}-*.bin"))


@needs_ray
def test_ray(tmp_path: Path) -> None:
    """One of two a round, so that their states differ, by a method that keeps something of each client's own."""
    options: dict[str, Any] = {"method": "stc", "participation": 0.5, "rounds": 3, "min_clients": 1}
    wanted = simulated(tmp_path / "wanted", **options)
    assert_same(simulated_on_ray(tmp_path / "ray", **options), wanted)
    assert not (tmp_path / "ray/clients").exists()


@needs_ray
def test_flwr_run_local_simulation(site: FlowerSite, tmp_path: Path) -> None:
    wanted = simulated(tmp_path / "wanted")
    site.run("local-simulation", run_config(tmp_path / "run"))
    site.wait_for(tmp_path / "run/summary.json", timeout_s=300)
    assert_same(tmp_path / "run", wanted)
    assert site.listening  # the processes' ports were seen, and nobody else can reach them
    assert site.listening <= LOOPBACK
