"""Options from flag, environment and file, and what `config show` says of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pemn.config import resolve
from pemn.errors import ConfigError
from pemn_client.settings import StartSettings as ClientSettings
from pemn_server.cli import main
from pemn_server.settings import SimulateSettings, StartSettings

DEPLOY = Path(__file__).parents[3] / "deploy"


def test_config_show_says_where_each_value_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('rounds = 7\nepochs = 5\nmodel = "mlp-8"\n')
    monkeypatch.setenv("PEMN_SERVER_EPOCHS", "4")
    monkeypatch.setenv("PEMN_SERVER_MODEL", "mlp-9")
    words = ["pemn-server", "config", "show", "--insecure", "--config", str(file), "--model", "mlp-10"]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["rounds"] == ["7", "file", str(file)]
    assert rows["epochs"] == ["4", "environment", "PEMN_SERVER_EPOCHS"]
    assert rows["model"] == ["mlp-10", "flag", "--model"]
    assert rows["insecure"] == ["true", "flag", "--insecure"]
    assert rows["strategy"] == ["rp:1e-2", "default"]


@pytest.mark.parametrize(
    ("options", "num_slots"), [([], 2), (["--min-clients", "5"], 5), (["--clients", "9"], 9)]
)
def test_shares_follow_the_clients(options: list[str], num_slots: int) -> None:
    resolved = resolve(StartSettings, ["--insecure", *options], prog="x", env_prefix="PEMN_SERVER_")
    assert resolved.settings.num_slots == num_slots


def test_a_simulation_has_ten_clients() -> None:
    assert resolve(SimulateSettings, [], prog="x", env_prefix="PEMN_SERVER_").settings.num_slots == 10


def test_the_files_in_deploy_are_options() -> None:
    server = resolve(
        StartSettings, ["--config", str(DEPLOY / "server.toml")], prog="x", env_prefix="PEMN_SERVER_"
    ).settings
    assert (server.min_clients, server.model, server.insecure) == (3, "mlp-256-256", False)
    client = resolve(
        ClientSettings,
        ["--config", str(DEPLOY / "client.toml"), "--shard", "2/3"],
        prog="x",
        env_prefix="PEMN_CLIENT_",
    ).settings
    assert (client.slot, client.num_slots, client.server) == (2, 3, "server.example:8470")


@pytest.mark.parametrize("options", [["--insecure", "--ca", "ca.pem"], []])
def test_a_client_must_say_how_it_trusts(options: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"TLS: got .*; wanted --ca FILE or --insecure"):
        resolve(
            ClientSettings,
            ["--server", "h:1", "--shard", "0/1", *options],
            prog="x",
            env_prefix="PEMN_CLIENT_",
        )


def test_flower_does_not_call_home() -> None:
    from flwr.supercore import telemetry

    import pemn_server.flower  # noqa: F401 (sets the variables that Flower reads when it is imported)

    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"
