from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pemn.errors import ConfigError, FileError
from pemn_server.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_what_was_written_is_there_again(path: Path) -> None:
    journal = Journal(path)
    journal.add(3, 1, b"one")
    journal.add(3, 0, b"")
    journal.add(4, 1, bytes(100_000))
    journal.close_round(3)
    journal.close()
    journal = Journal(path)
    assert journal.votes(3) == {0: b"", 1: b"one"}
    assert journal.votes(4) == {1: bytes(100_000)}
    assert journal.votes(5) == {}
    assert journal.closed() == [3]
    journal.drop_before(4)
    assert (journal.votes(3), journal.closed()) == ({}, [])
    assert journal.votes(4) == {1: bytes(100_000)}
    journal.close()


def test_a_slot_votes_once_a_round(path: Path) -> None:
    journal = Journal(path)
    journal.add(3, 1, b"one")
    with pytest.raises(FileError, match="UNIQUE"):
        journal.add(3, 1, b"two")
    assert journal.votes(3) == {1: b"one"}
    journal.close()


def test_one_process_has_it(path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(ConfigError, match="another server is at work"):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_every_write_waits_for_the_disk(path: Path) -> None:
    journal = Journal(path)
    database = journal._database
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: also the WAL, at every commit
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not database.in_transaction
    journal.add(1, 1, b"one")
    journal.drop_before(1)
    assert not database.in_transaction
    journal.close()


def test_what_is_no_journal(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 999)
    with pytest.raises(FileError, match=r"^journal: file is not a database: in "):
        Journal(path)
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(FileError, match="journal of another version: got 2; wanted 1"):
        Journal(path)
    with pytest.raises(FileError, match="unable to open"):
        Journal(path.parent / "nowhere" / "journal.sqlite")


def test_a_full_disk_is_a_file_error(path: Path) -> None:
    journal = Journal(path)
    journal._database.execute("PRAGMA max_page_count = 20")
    with pytest.raises(FileError, match="journal: database or disk is full: wanted a disk with room"):
        journal.add(1, 1, bytes(1 << 20))
    assert journal.votes(1) == {}
    journal.add(1, 1, b"small")  # what there is room for still goes in
    journal.close()
