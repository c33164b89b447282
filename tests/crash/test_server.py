"""kill -9 of a server at any point of a run: the same command goes on, to the same bits."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from pemn_server.journal import JOURNAL_NAME, Journal
from pemn_server.record import LAST_SNAPSHOT_NAME, SNAPSHOT_NAME
from tests.crash.actors import SERVER_POINTS
from tests.crash.place import CLIENTS, ROUNDS, Place, ends


@pytest.mark.parametrize("point", SERVER_POINTS)
def test_a_killed_server_goes_on(point: str, place: Place, whole: dict[str, Any]) -> None:
    killed, clients = place.serve(point), place.clients()
    assert ends(killed) == -signal.SIGKILL, place.server_log.read_text()
    had_votes = set()
    if (place.run_dir / JOURNAL_NAME).exists():
        journal = Journal(place.run_dir / JOURNAL_NAME)
        had_votes = {(slot, round_) for round_ in range(1, ROUNDS + 1) for slot in journal.votes(round_)}
        journal.close()
    before = place.trained() if had_votes else []
    in_vain = 1.0 if point == "clients have gone" else None  # nobody comes back: no need to wait for long
    assert ends(place.serve(return_timeout_s=in_vain)) == 0, place.server_log.read_text()
    assert [ends(client) for client in clients] == [0] * CLIENTS
    assert place.results() == whole
    trained = place.trained()
    assert len(trained) <= CLIENTS * (ROUNDS + 1)  # at most one round again
    for vote in had_votes:  # what was kept is not asked for again
        assert trained.count(vote) == before.count(vote)


def test_a_damaged_snapshot_is_no_loss(place: Place, whole: dict[str, Any]) -> None:
    killed, clients = place.serve("a vote is kept"), place.clients()
    assert ends(killed) == -signal.SIGKILL
    snapshot = place.run_dir / SNAPSHOT_NAME
    snapshot.write_bytes(snapshot.read_bytes()[:-9])
    assert ends(place.serve()) == 0, place.server_log.read_text()
    assert [ends(client) for client in clients] == [0] * CLIENTS
    assert "going on from the snapshot before, after round 0" in place.server_log.read_text()
    assert place.results() == whole


def test_a_run_without_its_journal_asks_again(place: Place, whole: dict[str, Any]) -> None:
    killed, clients = place.serve("a vote is kept"), place.clients()
    assert ends(killed) == -signal.SIGKILL
    for path in place.run_dir.glob(f"{JOURNAL_NAME}*"):
        path.rename(place.folder / path.name)
    assert ends(place.serve()) == 0, place.server_log.read_text()
    assert [ends(client) for client in clients] == [0] * CLIENTS
    assert place.results() == whole


@pytest.mark.parametrize("damage", [b"", b"not a database at all, but text" * 99])
def test_a_run_that_cannot_be_taken_up_says_why(damage: bytes, place: Place) -> None:
    killed, _ = place.serve("a vote is kept"), place.clients()
    assert ends(killed) == -signal.SIGKILL
    for name in (SNAPSHOT_NAME, LAST_SNAPSHOT_NAME):
        (place.run_dir / name).write_bytes(damage)
    assert ends(place.serve()) == 7
    assert "error: damaged checkpoint" in place.server_log.read_text()
    (place.run_dir / JOURNAL_NAME).write_bytes(b"not a database at all" * 999)
    (place.run_dir / f"{JOURNAL_NAME}-wal").unlink(missing_ok=True)
    assert ends(place.serve()) == 7
    assert "error: journal: file is not a database" in place.server_log.read_text()


def test_a_run_goes_on_with_the_options_that_it_was_begun_with(place: Place) -> None:
    killed, _ = place.serve("a vote is kept"), place.clients()
    assert ends(killed) == -signal.SIGKILL
    assert ends(place.serve(None, "--leak", 0.5)) == 2
    assert "resuming with another option: got 0.5; wanted 0.1,70%:0.05,85%:0.025; in --leak" in (
        place.server_log.read_text()
    )


def test_two_servers_do_not_share_a_run(place: Place) -> None:
    first = place.serve()  # waits for clients that do not come
    while not (place.run_dir / SNAPSHOT_NAME).exists():
        time.sleep(0.05)
    second = place.serve(None, "--listen", "127.0.0.1:0")
    assert ends(second) == 2
    assert "error: another server is at work in the run's folder" in place.server_log.read_text()
    assert first.is_alive()


def test_a_server_that_is_told_to_stop_goes_on_later(place: Place, whole: dict[str, Any]) -> None:
    server, clients = place.serve(), place.clients()
    while "round 1/" not in (place.server_log.read_text() if place.server_log.exists() else ""):
        time.sleep(0.01)
    assert server.pid is not None
    server.terminate()
    assert ends(server) == 0, place.server_log.read_text()
    assert f"stopped: the same command with --run-dir {place.run_dir} goes on" in place.server_log.read_text()
    assert ends(place.serve()) == 0, place.server_log.read_text()
    assert [ends(client) for client in clients] == [0] * CLIENTS
    assert "going on after round" in place.server_log.read_text()
    assert place.results() == whole


@pytest.mark.parametrize("max_file_bytes", [5_000, 30_000, 60_000])
def test_a_full_disk_loses_nothing(max_file_bytes: int, place: Place, whole: dict[str, Any]) -> None:
    server, clients = place.serve(max_file_bytes=max_file_bytes), place.clients()
    assert ends(server) == 7, place.server_log.read_text()
    complaint = place.server_log.read_text().splitlines()[-1]
    assert complaint.startswith("pemn-server: error: ")
    assert str(place.run_dir) in complaint
    assert ends(place.serve()) == 0, place.server_log.read_text()
    assert [ends(client) for client in clients] == [0] * CLIENTS
    assert place.results() == whole
