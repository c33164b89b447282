"""Options from flag, environment and file, and what `config show` says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pemn.config import resolve
from pemn.errors import ConfigError
from pemn.schedule import Schedule
from pemn.spec import to_float32
from pemn.wire.protocols import MaskProtocol
from pemn_client.settings import StartSettings as ClientSettings
from pemn_server.cli import main
from pemn_server.methods import choose_method
from pemn_server.plan import make_plan
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


def protocol_of(*options: str) -> MaskProtocol:
    resolved = resolve(StartSettings, ["--insecure", *options], prog="x", env_prefix="PEMN_SERVER_")
    protocol = choose_method(resolved.settings).protocol
    assert isinstance(protocol, MaskProtocol)
    return protocol


def test_steps_by_round_are_strides_of_what_divides_them_all() -> None:
    always = protocol_of()
    assert (always.step, always.stride, always.window) == (32768, Schedule.always(1), 5)
    coarse_to_fine = protocol_of("--step", "0.5,5:0.25,9:0.125")
    assert (coarse_to_fine.step, coarse_to_fine.stride) == (8192, Schedule(((1, 4), (5, 2), (9, 1))))
    no_power = protocol_of("--step", "0.375,3:0.25")
    assert (no_power.step, no_power.stride) == (8192, Schedule(((1, 3), (3, 2))))
    finest = protocol_of("--step", "0.9921875,2:0.0078125")
    assert (finest.step, finest.stride) == (512, Schedule(((1, 127), (2, 1))))
    assert protocol_of("--step", "0.5,4:0.5000001").stride == Schedule.always(
        1
    )  # the same, as the wire has it


def test_leaks_by_round_are_what_is_kept() -> None:
    assert protocol_of().keep == Schedule(((1, 230), (15, 243), (18, 250)))  # of 20 rounds
    assert protocol_of("--leak", "0").keep == Schedule.always(256)
    assert protocol_of("--leak", "0.25,12:0.5,20:0").keep == Schedule(((1, 192), (12, 128), (20, 256)))
    assert protocol_of("--leak", "0.25,12:0.2501").keep == Schedule.always(
        192
    )  # the same, as the wire has it
    for wrong in ("1", "-0.1", "0.2,0.3", "much"):
        with pytest.raises(ConfigError, match=r"^schedule: got .*; in --leak$"):
            protocol_of("--leak", wrong)


def test_settings_by_round() -> None:
    rates = "0.3,12:0.1"
    options = resolve(
        StartSettings,
        [
            "--insecure",
            "--learning-rate",
            rates,
            "--server-step",
            "1,4:0.5",
            "--averaging",
            "9",
            "--tie",
            "2",
        ],
        prog="x",
        env_prefix="PEMN_SERVER_",
    ).settings
    spec = make_plan(options).spec
    assert spec.training.learning_rate == Schedule(((1, to_float32(0.3)), (12, to_float32(0.1))))
    assert spec.training.logit_adjustment == 1.0
    assert (spec.mask.eta_num, spec.mask.eta_den) == (Schedule(((1, 1000), (4, 500))), 1000)
    assert (spec.mask.window, spec.model.tie, spec.num_rounds) == (9, 2, 20)
    assert spec.data.num_images is None


def test_a_file_may_have_numbers(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("learning-rate = 0.123456789\nstep = 0.25\nserver-step = 2\nimages = 500\ntie = 4\n")
    options = resolve(
        StartSettings, ["--insecure", "--config", str(file)], prog="x", env_prefix="PEMN_SERVER_"
    ).settings
    spec = make_plan(options).spec
    assert spec.training.learning_rate == Schedule.always(to_float32(0.123456789))
    assert (spec.mask.step, spec.mask.eta_num) == (16384, Schedule.always(2000))
    assert (spec.data.num_images, spec.model.tie) == (500, 4)
    file.write_text('step = "0.5,7:0.25"\n')
    assert protocol_of("--config", str(file)).stride == Schedule(((1, 2), (7, 1)))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["--method", "fedavg", "--tie", "4"],
            "--tie with --method fedavg: got 4; wanted it left out: it is for mask",
        ),
        (
            ["--method", "fedpm", "--momentum", "0.5"],
            "--momentum with --method fedpm: got 0.5; wanted it left out",
        ),
        (["--share", "0.1"], "--share with --method mask: got 0.1; wanted it left out: it is for stc"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: list[str], error: str) -> None:
    settings = resolve(SimulateSettings, options, prog="x", env_prefix="PEMN_SERVER_").settings
    with pytest.raises(ConfigError, match=error):
        choose_method(settings)


def test_workers_and_batches_are_two_ways() -> None:
    with pytest.raises(ConfigError, match="--workers with --cohort-batch: wanted one of them"):
        resolve(
            SimulateSettings, ["--workers", "2", "--cohort-batch", "2"], prog="x", env_prefix="PEMN_SERVER_"
        )


@pytest.mark.parametrize("options", [["--insecure", "--credentials", "tls"], []])
def test_a_client_must_say_how_it_trusts(options: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"TLS: got .*; wanted --credentials DIR or --insecure"):
        resolve(
            ClientSettings,
            ["--server", "h:1", "--shard", "0/1", *options],
            prog="x",
            env_prefix="PEMN_CLIENT_",
        )


@pytest.mark.parametrize("module", ["pemn_server.flower", "pemn_client.flower"])
def test_flower_does_not_call_home(module: str) -> None:
    """In a process of its own: Flower looks once, when it is imported."""
    asked = f"import {module}; from flwr.supercore import telemetry; print(telemetry.FLWR_TELEMETRY_ENABLED)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    done = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, check=True)
    assert done.stdout.strip() == b"0"
