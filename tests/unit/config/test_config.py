from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from pemn.config import Resolved, resolve, show
from pemn.errors import ConfigError
from pemn.prototype import Strategy


class Settings(BaseSettings):
    """Runs a test.

    Not for the help.
    """

    seed: int = Field(description="The run's seed.")
    rounds: int = Field(10, ge=1, le=1000, description="How often 100 % of the clients train.")
    out_dir: Path | None = Field(None, description="Where results go.")
    insecure: bool = Field(False, description="Do without TLS.")
    partition: Literal["iid", "shards"] = Field("iid", description="How images are dealt out.")
    rate: float | Literal["auto"] = Field("auto", description="Learning rate.")
    names: list[str] = Field(default=["a", "b"], description="Who takes part.")
    strategy: str = Field("full", description="Which values fill which layer.")

    @field_validator("strategy")
    @classmethod
    def _parse_strategy(cls, text: str) -> str:
        return str(Strategy.parse(text))

    @field_validator("out_dir")
    @classmethod
    def _not_root(cls, path: Path | None) -> Path | None:
        if path == Path("/"):
            raise ValueError("results do not go to the root")
        return path

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.insecure and self.rounds == 7:
            raise ValueError("--insecure does not go with 7 rounds")
        return self


def run(*argv: str) -> Resolved[Settings]:
    return resolve(Settings, argv, prog="pemn-test start", env_prefix="PEMN_TEST_")


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("pemn.toml")


def failure(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        run(*argv)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_flag_beats_environment_beats_file_beats_default(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds(*argv: str) -> tuple[int, str]:
        found = run("--seed", "1", *argv)
        return found.settings.rounds, found.origins["rounds"]

    toml.write_text("seed = 3\nrounds = 20\n")
    assert rounds() == (10, "default")
    assert rounds("--config", "pemn.toml") == (20, "file pemn.toml")
    monkeypatch.setenv("PEMN_TEST_ROUNDS", "30")
    assert rounds("--config", "pemn.toml") == (30, "environment PEMN_TEST_ROUNDS")
    assert rounds("--config", "pemn.toml", "--rounds", "40") == (40, "flag --rounds")


def test_every_option_has_an_origin_and_is_in_the_table(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('out-dir = "results"\nnames = ["x", "y"]\n')
    monkeypatch.setenv("PEMN_TEST_CONFIG", "pemn.toml")
    monkeypatch.setenv("PEMN_TEST_PARTITION", "shards")
    found = run("--seed", "5", "--no-insecure", "--debug")
    assert found.debug
    assert found.settings.out_dir == Path("results")
    assert found.settings.names == ["x", "y"]
    assert [line.split(maxsplit=2) for line in show(found).splitlines()] == [
        ["option", "value", "origin"],
        ["seed", "5", "flag --seed"],
        ["rounds", "10", "default"],
        ["out-dir", "results", "file pemn.toml"],
        ["insecure", "false", "flag --no-insecure"],
        ["partition", "shards", "environment PEMN_TEST_PARTITION"],
        ["rate", "auto", "default"],
        ["names", "x,y", "file pemn.toml"],
        ["strategy", "full", "default"],
    ]


@pytest.mark.parametrize("text", ["p,q", '["p","q"]', "p, q"])
def test_lists_are_written_alike_as_flag_and_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    assert [name.strip() for name in run("--seed", "1", "--names", text).settings.names] == ["p", "q"]
    monkeypatch.setenv("PEMN_TEST_NAMES", text)
    assert run("--seed", "1").settings.names == ["p", "q"]


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEMN_TEST_ROUNDS", "")
    monkeypatch.setenv("PEMN_TEST_CONFIG", "")
    assert run("--seed", "1").origins["rounds"] == "default"


def test_no_other_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS", "99")
    monkeypatch.setenv("SEED", "99")
    assert run("--seed", "1").settings.rounds == 10
    assert "missing option --seed" in failure()


def test_texts_are_taken_literally() -> None:
    assert run("--seed", "1", "--out-dir", "null").settings.out_dir == Path("null")


def test_help_has_every_option_with_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: pemn-test start [OPTION ...] Runs a test. options:" in text
    assert "--seed N The run's seed. (required; env PEMN_TEST_SEED)" in text
    assert "--rounds N How often 100 % of the clients train. (default 10; env PEMN_TEST_ROUNDS)" in text
    assert "--out-dir PATH Where results go. (no default; env PEMN_TEST_OUT_DIR)" in text
    assert "--insecure, --no-insecure Do without TLS. (default false; env PEMN_TEST_INSECURE)" in text
    assert "--partition iid|shards" in text
    assert "--rate NUMBER|auto" in text
    assert "--names TEXT,... Who takes part. (default a,b; env PEMN_TEST_NAMES)" in text
    assert "--config FILE" in text
    assert "env PEMN_TEST_CONFIG" in text
    assert "--debug" in text


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["--round", "3"], "unknown flag --round, did you mean --rounds?"),
        (["--outdir=x"], "unknown flag --outdir, did you mean --out-dir?"),
        (["-q"], "unknown flag -q ("),
        (["3"], "unexpected argument '3'"),
        (["--rounds"], "--rounds: expected one argument (pemn-test start --help lists all flags)"),
        ([], "missing option --seed: wanted the flag, PEMN_TEST_SEED, or a line in the file of --config"),
        (["--rounds", "x"], "option rounds: got 'x'; wanted a valid integer; in flag --rounds"),
        (["--rounds", "0"], "option rounds: got '0'; wanted greater than or equal to 1; in flag --rounds"),
        (["--rate", "x"], "option rate: got 'x'; wanted a valid number or 'auto'; in flag --rate"),
        (["--partition", "even"], "option partition: got 'even'; wanted 'iid' or 'shards'"),
        (["--names", '["a"'], "names"),
        (["--out-dir", "/"], "option out-dir, results do not go to the root: got '/'; in flag --out-dir"),
        (["--strategy", "rp:3"], "unknown strategy: got 'rp:3'; wanted full, one-layer, mp or rp:RATIO"),
        (["--insecure", "--rounds", "7"], "--insecure does not go with 7 rounds"),
        (["--config", "missing.toml"], "No such file or directory: in missing.toml"),
        (["--config", "."], "Is a directory"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(argv: list[str], wanted: str) -> None:
    alone = not argv or argv == ["--rounds"]
    assert wanted in failure(*argv, *([] if alone else ["--seed", "1"]))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"round = 3", "unknown key 'round', did you mean rounds?: in pemn.toml"),
        (b"[general]\nrounds = 3", "unknown key 'general': in pemn.toml"),
        (b'out-dir = "a"\nout_dir = "b"', "key 'out-dir' twice"),
        (b"seed = 1\nrounds = three", "(at line 2, column 10): in pemn.toml"),
        (b"\xff", "not TOML"),
        (b"rounds = 2000", "option rounds: got 2000; wanted less than or equal to 1000; in file pemn.toml"),
        (b"names = 3", "option names: got 3; wanted a valid list; in file pemn.toml"),
    ],
)
def test_a_wrong_file_is_one_clear_line(toml: Path, text: bytes, wanted: str) -> None:
    toml.write_bytes(text)
    assert wanted in failure("--seed", "1", "--config", "pemn.toml")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("ROUND", "3", "unknown environment variable PEMN_TEST_ROUND, did you mean PEMN_TEST_ROUNDS?"),
        ("ROUNDS", "x", "option rounds: got 'x'; wanted a valid integer; in environment PEMN_TEST_ROUNDS"),
        ("NAMES", "[x", "not a list: got '[x'; wanted a,b or JSON; in environment PEMN_TEST_NAMES"),
        ("CONFIG", "gone.toml", "No such file or directory: in gone.toml"),
    ],
)
def test_a_wrong_variable_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, wanted: str
) -> None:
    monkeypatch.setenv(f"PEMN_TEST_{name}", value)
    assert wanted in failure("--seed", "1")


def test_a_long_wrong_value_is_cut() -> None:
    assert len(failure("--seed", "9" * 3000 + "x")) < 300


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)


def test_reading_settings_loads_neither_torch_nor_flower() -> None:
    done = python("import sys, pemn.config; print({'torch', 'flwr', 'matplotlib'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


def test_without_the_package_one_line_says_what_to_install() -> None:
    done = python("import sys; sys.modules['pydantic_settings'] = None; import pemn.config")
    last = done.stderr.splitlines()[-1]
    assert last.endswith("ConfigError: this command needs pydantic-settings: pip install 'pemn[train]'")
