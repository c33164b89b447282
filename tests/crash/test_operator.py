"""An operator and a server that is at work: what it says, who is sent away, how it stops."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import pemn_server.cli
from pemn_server.operator import SOCKET_NAME, ask
from tests.crash.place import CLIENTS, ROUNDS, Place, ends


def wait_for(place: Place, what: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (place.run_dir / SOCKET_NAME).exists():
            status: dict[str, Any] = ask(place.run_dir, "status")
            if what(status):
                return status
        time.sleep(0.02)
    raise AssertionError(place.server_log.read_text())


@pytest.fixture
def command(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    def run(name: str, *words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pemn-server", name, "--run-dir", str(place.run_dir), *words])
        code = pemn_server.cli.main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_a_revoked_client_is_sent_away_and_another_takes_its_place(
    place: Place, command: Callable[..., tuple[int, str]]
) -> None:
    server, first = place.serve(), place.client(0)
    wait_for(place, lambda status: status["clients"] == [0])
    assert command("clients") == (
        0,
        "slot  name      state\n   0  client-0  here\n   1  client-1  away\n",
    )
    assert command("revoke", "client-0") == (0, "client-0, client 0, is revoked\n")
    assert ends(first) == 6
    assert "this client's key was revoked" in (place.folder / "client-0.log").read_text()
    assert ends(place.client(0)) == 6  # nor does it get in again
    assert json.loads(command("clients", "--json")[1])[0] == {
        "slot": 0,
        "name": "client-0",
        "state": "revoked",
    }
    code, complaint = command("revoke", "client-0")
    assert code == 2
    assert "client to revoke: got client-0" in complaint
    status = wait_for(place, lambda status: status["refused"].get("NotEnrolled", 0) >= 2)
    assert (status["round"], status["clients"]) == (0, [])
    assert server.is_alive()


def test_the_status_follows_the_run_and_stop_parks_it(
    place: Place, whole: dict[str, Any], command: Callable[..., tuple[int, str]]
) -> None:
    server, clients = place.serve(), place.clients()
    status = wait_for(place, lambda status: status["round"] >= 1)
    assert status["num_rounds"] == ROUNDS
    assert status["uplink_bytes"] > 0 < status["downlink_bytes"]
    assert 0 < status["accuracy"] < 1
    code, text = command("stop")
    if code == 0:  # three rounds take no time at all: it may have been over
        assert text == "the server stops\n"
        assert ends(server) == 0
        assert ends(place.serve()) == 0, place.server_log.read_text()
    assert [ends(client) for client in clients] == [0] * CLIENTS
    assert place.results() == whole
    code, text = command("status")
    assert code == 4
    assert "no server is at work in the run's folder" in text
