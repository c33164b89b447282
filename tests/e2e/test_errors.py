"""Bad input to the commands: one line on stderr that says what, got, wanted and where, and a documented exit code."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pemn_client.cli
import pemn_server.cli
from pemn.link.provision import provision
from pemn.link.tls import server_credentials
from pemn.wire import limits
from tests.e2e.processes import free_port
from tests.link_rig import serving

CONFIG, DATA, NETWORK, TLS, PROTOCOL, FILE = 2, 3, 4, 5, 6, 7
MAINS = {"pemn-server": pemn_server.cli.main, "pemn-client": pemn_client.cli.main}


class Command:
    """Runs a command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *words: object) -> tuple[int, str]:
        """Returns the exit code and the complaint, which must be one line without a traceback."""
        self._monkeypatch.setattr(sys, "argv", list(map(str, words)))
        self._capfd.readouterr()
        code = MAINS[str(words[0])]()
        complaint = self._capfd.readouterr().err
        assert re.fullmatch(r"(pemn-server|pemn-client): error: [^\n]+\n", complaint), complaint
        return code, complaint


LONG_SCHEDULE = ",".join(["0.3", *(f"{round_}:0.{round_ % 2 + 1}" for round_ in range(2, 300))])


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capfd)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    provision(folder, [], 2)
    return folder


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--dataset", "mnist"], DATA, "unknown data set: got 'mnist'; wanted digits, cifar10"),
        (["--dataset", "cifar10", "--data-dir", "nowhere"], DATA, "nowhere"),
        (["--dataset", "folder", "--data-dir", "nowhere"], DATA, "nowhere"),
        (["--model", "vgg-16"], CONFIG, "vgg-16"),
        (
            ["--strategy", "rp:7"],
            CONFIG,
            "unknown strategy: got 'rp:7'; wanted full, one-layer, mp or rp:RATIO",
        ),
        (["--partition", "classes"], CONFIG, "classes"),
        (["--rounds", "0"], CONFIG, "rounds"),
        (["--rounds", "many"], CONFIG, "got 'many'"),
        (["--seed", "-1"], CONFIG, "seed"),
        (["--epochz", "3"], CONFIG, "unknown flag --epochz, did you mean --epochs?"),
        (["--clients", "2", "--min-clients", "3"], CONFIG, "wanted at least --min-clients, 3"),
        (["--config", "nowhere.toml"], CONFIG, "nowhere.toml"),
        (["--partition", "own"], CONFIG, "simulated clients share a data set"),
        (["--partition", "classes:11"], CONFIG, "classes of a client: got 11; wanted at most 10"),
        (["--step", "0.3,0.2"], CONFIG, "schedule: got '0.3,0.2'; wanted VALUE or VALUE,WHEN:VALUE,"),
        (
            ["--step", "1"],
            CONFIG,
            "values 0.0078125 .. 0.999985 and ascending WHEN: rounds from 2, 1% .. 99%; in --step",
        ),
        (
            ["--step", "0.5,3:0.3"],
            CONFIG,
            "got 0.5,3:0.3; wanted multiples of one step, at least 1/128; in --step",
        ),
        (
            ["--server-step", "0"],
            CONFIG,
            "values 0.001 .. 65 and ascending WHEN: rounds from 2, 1% .. 99%; in --server-step",
        ),
        (["--server-step", "1,3:66"], CONFIG, "schedule: got '1,3:66'; wanted"),
        (["--server-step", "1,9:0.5,3:0.2"], CONFIG, "and ascending WHEN: rounds from 2, 1% .. 99%"),
        (["--learning-rate", "nan"], CONFIG, "schedule: got 'nan'; wanted"),
        (["--learning-rate", "0.3,1:0.2"], CONFIG, "schedule: got '0.3,1:0.2'; wanted"),
        (["--learning-rate", "0.3,5000000000:0.2"], CONFIG, "these options make no run"),
        (["--learning-rate", LONG_SCHEDULE], CONFIG, "these options make no run: field too often"),
        (["--method", "stc", "--learning-rate", "x"], CONFIG, "schedule: got 'x'; wanted"),
        (["--logit-adjustment", "-1"], CONFIG, "logit-adjustment"),
        (["--logit-adjustment", "nan"], CONFIG, "logit-adjustment"),
        (["--logit-adjustment", "101"], CONFIG, "logit-adjustment"),
        (["--averaging", "0"], CONFIG, "averaging"),
        (["--averaging", "4097"], CONFIG, "averaging"),
        (["--over-select", "1.3"], CONFIG, "over-selection: got 1.3; wanted --participation below 1"),
        (
            ["--participation", "0.1", "--clients", "10", "--min-clients", "3"],
            CONFIG,
            "votes that a round waits for: got 1; wanted at least --min-clients, 3; in --participation",
        ),
        (["--tie", "0"], CONFIG, "tie"),
        (["--tie", "257"], CONFIG, "tie"),
        (["--images", "0"], CONFIG, "images"),
        (["--images", "9"], CONFIG, "these options make no run: shares of digits: too few images"),
        (["--images", "1443"], CONFIG, "training images: got 1443; wanted at most 1442; in digits"),
        (["--clients", "5000"], CONFIG, "these options make no run: shares of digits: too few images"),
        (
            ["--clients", "20000", "--partition", "dirichlet:.3"],
            CONFIG,
            "these options make no run: slots times classes of dirichlet:0.3: got 200000; wanted <= 131072",
        ),
        (["--epochs", "10000000000"], CONFIG, "epochs"),
        (["--learning-rate", "1e-50"], CONFIG, "rounds from 2, 1% .. 99%; in --learning-rate"),
        (["--model", "mlp-99999-99999"], CONFIG, "network that no file can hold: number of values"),
        (["--clients", "2000000"], CONFIG, "clients"),
    ],
)
def test_options(command: Command, options: list[str], code: int, says: str) -> None:
    got, complaint = command("pemn-server", "simulate", *options)
    assert (got, says in complaint) == (code, True), complaint
    assert not list(Path("runs").glob("*/*")) or not Path("runs").exists()


def test_unknown_key_in_the_file(command: Command) -> None:
    Path("run.toml").write_text("rounds = 3\nepoch = 2\n")
    code, complaint = command("pemn-server", "start", "--insecure", "--config", "run.toml")
    assert code == CONFIG
    assert "unknown key 'epoch', did you mean epochs?" in complaint
    assert "run.toml" in complaint


def test_unknown_variable(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEMN_SERVER_ROUND", "3")
    code, complaint = command("pemn-server", "start", "--insecure")
    assert code == CONFIG
    assert "PEMN_SERVER_ROUND, did you mean PEMN_SERVER_ROUNDS?" in complaint


def test_corrupt_parquet(command: Command) -> None:
    folder = Path("cifar/plain_text")
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}-00000-of-00001.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    code, complaint = command("pemn-server", "simulate", "--dataset", "cifar10", "--data-dir", "cifar")
    assert code == DATA
    assert "test-00000-of-00001.parquet" in complaint


def test_a_folder_with_other_results_is_left_alone(command: Command) -> None:
    folder = Path("old")
    folder.mkdir()
    (folder / "summary.json").write_text("{}")
    code, complaint = command("pemn-server", "simulate", "--run-dir", folder)
    assert code == CONFIG
    assert "another run" in complaint
    assert (folder / "summary.json").read_text() == "{}"


@pytest.mark.parametrize(
    "words", [["pemn-server", "run"], ["pemn-client", "go"], ["pemn-server", "config", "set"]]
)
def test_unknown_command(command: Command, words: list[str]) -> None:
    code, complaint = command(*words)
    assert code == CONFIG
    assert "unknown command: got" in complaint


def test_port_in_use(command: Command, taken_port: int) -> None:
    code, complaint = command("pemn-server", "start", "--insecure", "--listen", f"127.0.0.1:{taken_port}")
    assert code == NETWORK
    assert f"127.0.0.1:{taken_port}" in complaint


@pytest.mark.parametrize(
    "options",
    [
        *([], ["--insecure", "--credentials", "tls"]),
        *(["--insecure", "--listen", "0.0.0.0:0"], ["--insecure", "--listen", "[::]:0"]),
    ],
)
def test_the_server_wants_to_know_about_tls(command: Command, options: list[str]) -> None:
    code, complaint = command("pemn-server", "start", *options)
    assert code == CONFIG
    assert "TLS: got" in complaint
    assert "--credentials" in complaint or "--insecure-network" in complaint


def test_certificates_are_not_written_over(command: Command, tls: Path) -> None:
    before = (tls / "ca.pem").read_bytes()
    code, complaint = command("pemn-server", "provision", tls, "--clients", "2")
    assert code == FILE
    assert str(tls) in complaint
    assert (tls / "ca.pem").read_bytes() == before


def client(address: str, *options: object) -> list[object]:
    return ["pemn-client", "start", "--server", address, "--give-up-after-s", "0.5", *options]


@pytest.mark.parametrize("shard", ["3/3", "1", "a/b", "-1/3", "0/0"])
def test_a_shard_that_is_none(command: Command, shard: str) -> None:
    code, complaint = command(*client("127.0.0.1:1", "--insecure", f"--shard={shard}"))
    assert code == CONFIG
    assert "shard" in complaint
    assert "I/N" in complaint


def test_missing_options(command: Command) -> None:
    code, complaint = command("pemn-client", "start", "--insecure")
    assert code == CONFIG
    assert "--server, --shard" in complaint


def test_server_away(command: Command) -> None:
    code, complaint = command(*client(f"127.0.0.1:{free_port()}", "--insecure", "--shard", "0/2"))
    assert code == NETWORK
    assert "server away" in complaint
    assert "refused" in complaint


def test_wrong_ca(command: Command, tls: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    provision(other, [], 1)
    with serving(credentials=server_credentials(tls / "server.pem", tls / "server.key")) as server:
        code, complaint = command(
            *client(server.address, "--credentials", other / "client-0", "--shard", "0/2")
        )
    assert code == TLS
    assert str(other / "client-0/ca.pem") in complaint


def test_plain_client_against_tls(command: Command, tls: Path) -> None:
    with serving(credentials=server_credentials(tls / "server.pem", tls / "server.key")) as server:
        code, complaint = command(*client(server.address, "--insecure", "--shard", "0/2"))
    assert code == TLS
    assert "--credentials" in complaint


def test_tls_client_against_plain(command: Command, tls: Path) -> None:
    with serving() as server:
        code, complaint = command(
            *client(server.address, "--credentials", tls / "client-0", "--shard", "0/2")
        )
    assert code == TLS
    assert "--insecure" in complaint


def test_older_protocol_version(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        monkeypatch.setattr(limits, "PROTOCOL_VERSION", 0)  # the client's; the server has read its own
        code, complaint = command(*client(server.address, "--insecure", "--shard", "0/2"))
    assert code == PROTOCOL
    assert "protocol version: got 0; wanted 7" in complaint


def test_another_number_of_shards(command: Command) -> None:
    with serving(num_slots=2) as server:
        code, complaint = command(*client(server.address, "--insecure", "--shard", "0/5"))
    assert code == PROTOCOL
    assert "got 5; wanted 2" in complaint
