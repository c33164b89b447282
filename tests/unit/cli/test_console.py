"""Errors become one line and the documented exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from pemn.console import Parser, printable, run
from pemn.errors import ConfigError, PemnError, every_error


def throw(error: BaseException) -> NoReturn:
    raise error


def test_the_commands_own_code_comes_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prog", lambda: 0, debug=False) == 0
    assert run("prog", lambda: 9, debug=False) == 9
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", every_error().values())
def test_every_error_has_its_code_and_one_line(
    error: type[PemnError], capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("prog", lambda: throw(error("it broke", got="1\n2", where="here")), debug=False)
    assert code == error.exit_code
    captured = capsys.readouterr()
    assert captured.err == "prog: error: it broke: got 1 2; in here\n"
    assert captured.out == ""


def test_the_unexpected_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prog", lambda: throw(KeyError("a\nb")), debug=False) == 1
    wanted = "prog: internal error: KeyError: 'a\\nb' (run again with --debug)\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize(("error", "code"), [(ConfigError("no"), 2), (ValueError("no"), 1)])
def test_debug_shows_the_traceback(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prog", lambda: throw(error), debug=True) == code
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert "test_console.py" in text
    assert "run again" not in text


def test_ctrl_c_is_130_and_one_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prog", lambda: throw(KeyboardInterrupt()), debug=False) == 130
    assert capsys.readouterr() == ("", "prog: stopped\n")


@pytest.mark.parametrize("num_lines", [2, 100_000])
def test_a_reader_that_has_had_enough_is_no_crash(num_lines: int) -> None:
    program = f"""
import sys
from pemn.console import run
def main():
    print("first", flush=True)
    sys.stdin.read()
    for i in range({num_lines}):
        print(i)
    return 0
sys.exit(run("prog", main, debug=False))
"""
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=buffered) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_complaints_about_arguments_are_errors() -> None:
    parser = Parser(prog="prog")
    parser.add_argument("--count", type=int)
    with pytest.raises(ConfigError, match=r"argument --count: invalid int value: 'x' \(see prog --help\)"):
        parser.parse_args(["--count", "x"])


def test_foreign_texts_cannot_move_the_cursor() -> None:
    assert printable("Grüße, 猫") == "Grüße, 猫"
    assert printable("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\\nc\\u202e"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_full_disk_is_the_users_to_mend() -> None:
    program = "import sys\nfrom pemn.console import run\nsys.exit(run('prog', lambda: print('text') or 0, debug=False))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (7, "prog: error: no space left where the output goes\n")
