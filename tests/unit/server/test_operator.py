"""The operator's socket: who is heard, and what is answered."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pemn.errors import ConfigError, NetworkError, PemnError
from pemn_server import operator, operator_cli
from pemn_server.operator import SOCKET_NAME, Commands, ask, operated


def fail() -> None:
    raise ZeroDivisionError("a bug")


COMMANDS: Commands = {
    "add": lambda one, other: int(one) + int(other),
    "fail": fail,
    "big": lambda: ["x" * 1000] * 5000,
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ("long" * 60)  # longer than the name of a socket may be
    folder.mkdir()
    with operated(folder, COMMANDS):
        yield folder
    assert not (folder / SOCKET_NAME).exists()


def test_commands_are_answered(folder: Path) -> None:
    assert ask(folder, "add", "2", "3") == 5
    assert len(ask(folder, "big")) == 5000


def test_what_cannot_be_answered_harms_nobody(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown command: got divide; wanted add, fail, big"):
        ask(folder, "divide")
    with pytest.raises(ConfigError, match="arguments of add: got 1"):
        ask(folder, "add", "2")
    with pytest.raises(PemnError, match="unexpected ZeroDivisionError: a bug"):
        ask(folder, "fail")
    assert ask(folder, "add", "2", "3") == 5


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"command": 1, "arguments": []}\n',
        b'{"command": "add"}\n',
        b"\xff" * 9 + b"\n",
        b'{"command": "add", "arguments": [1, 2]}\n',
        b"x" * 200_000,
    ],
)
def test_what_is_no_request_is_told_so(folder: Path, request_: bytes) -> None:
    with operator._in(folder) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = json.loads(connection.makefile().readline())
    assert answer["error"]["code"] == ConfigError.code
    assert ask(folder, "add", "2", "3") == 5


def test_somebody_who_says_nothing_does_not_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "_REQUEST_TIMEOUT_S", 0.2)
    with operator._in(folder) as path, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(path)
        assert ask(folder, "add", "2", "3") == 5


def test_only_its_own_user_is_heard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (folder / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert operator._is_friend(one)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert operator._is_friend(one) == (os.getuid() == 0)


def test_the_socket_of_a_server_that_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no server is at work in the run's folder"):
        ask(tmp_path, "add", "1", "1")
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / SOCKET_NAME))
    left.close()
    with pytest.raises(NetworkError, match="no server is at work"):
        ask(tmp_path, "add", "1", "1")
    with operated(tmp_path, COMMANDS):
        assert ask(tmp_path, "add", "1", "1") == 2
    with pytest.raises(NetworkError, match="no server is at work"):
        ask(tmp_path / "missing", "add", "1", "1")


def test_what_a_person_reads(folder: Path) -> None:
    status = {
        "run_id": "00000000000000ab",
        "phase": "round 8",
        "round": 7,
        "num_rounds": 20,
        "votes": 2,
        "asked": 3,
        "clients": [0, 2],
        "accuracy": 0.91237,
        "uplink_bytes": 9876,
        "downlink_bytes": 8765,
        "refused": {"MalformedFrame": 1, "NotEnrolled": 20},
        "spent": {"decode": 12.34, "tally": 5.0},
        "seconds": 83.4,
    }
    assert operator_cli._describe_status(status) == [
        "run 00000000000000ab: round 8, 1:23 since this server began",
        "round 7 of 20 is closed, test accuracy 0.9124",
        "votes: 2 of 3 clients",
        "clients here: 0, 2",
        "on the wire: up 9.88 kB, down 8.77 kB",
        "the server's own work: decode 12.3 s, tally 5.0 s",
        "refused: 1 MalformedFrame, 20 NotEnrolled",
    ]
    assert operator_cli._describe_clients(
        [{"slot": 0, "name": "lab", "state": "here"}, {"slot": 12, "name": None, "state": "revoked"}]
    ) == ["slot  name  state", "   0  lab   here", "  12  -     revoked"]
