"""What has happened since the last snapshot, on the disk before anybody relies on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pemn.errors import ConfigError, FileError

JOURNAL_NAME = "journal.sqlite"
_VERSION = 1
_DISK_ERRORS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_WRITABLE = "a disk with room that can be written to; the same command then goes on with the run"
_TABLES = """
    CREATE TABLE IF NOT EXISTS votes (
        round INTEGER NOT NULL, slot INTEGER NOT NULL, vote BLOB NOT NULL, PRIMARY KEY (round, slot)
    );
    CREATE TABLE IF NOT EXISTS closed (round INTEGER PRIMARY KEY);
"""


class Journal:
    """Votes, and the rounds that were closed with them.

    Every call that writes returns when what it wrote is on the disk (SQLite, WAL, `synchronous=FULL`). No other process
    can open the file meanwhile.

    Args:
        path: The file; created if it is missing.

    Raises:
        ConfigError: If another process has it open.
        FileError: If it is damaged, of another version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("BEGIN IMMEDIATE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise FileError("journal of another version", got=version, wanted=_VERSION, where=self._path)
        for table in _TABLES.split(";"):
            self._database.execute(table)
        self._database.execute(f"PRAGMA user_version = {_VERSION}")
        self._database.execute("COMMIT")
        (verdict,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise FileError(f"journal is damaged, {verdict}", where=self._path)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ConfigError(
                    "another server is at work in the run's folder", where=self._path
                ) from error
            # The lower byte is the kind of error.
            wanted = _WRITABLE if error.sqlite_errorcode & 0xFF in _DISK_ERRORS else None
            raise FileError(f"journal: {error}", wanted=wanted, where=self._path) from error

    def add(self, round_: int, slot: int, vote: bytes) -> None:
        """Keeps a vote.

        Args:
            round_: Which it counts for.
            slot: Whose it is; one that has voted in this round already is a bug.
            vote: What the client sent.

        Raises:
            FileError: If it cannot be written.
        """
        with self._errors():
            self._database.execute("INSERT INTO votes VALUES (?, ?, ?)", (round_, slot, vote))

    def close_round(self, round_: int) -> None:
        """Keeps that a round takes no more votes.

        Raises:
            FileError: If it cannot be written.
        """
        with self._errors():
            self._database.execute("INSERT OR IGNORE INTO closed VALUES (?)", (round_,))

    def drop_before(self, round_: int) -> None:
        """Forgets earlier rounds.

        Raises:
            FileError: If it cannot be written.
        """
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM votes WHERE round < ?", (round_,))
            self._database.execute("DELETE FROM closed WHERE round < ?", (round_,))
            self._database.execute("COMMIT")

    def votes(self, round_: int) -> dict[int, bytes]:
        """Returns a round's votes by slot.

        Raises:
            FileError: If they cannot be read.
        """
        with self._errors():
            return dict(
                self._database.execute(
                    "SELECT slot, vote FROM votes WHERE round = ? ORDER BY slot", (round_,)
                )
            )

    def closed(self) -> list[int]:
        """Returns the rounds that were closed and are not forgotten, ascending.

        Raises:
            FileError: If they cannot be read.
        """
        with self._errors():
            return [round_ for (round_,) in self._database.execute("SELECT round FROM closed ORDER BY round")]

    def close(self) -> None:
        """Closes the file."""
        self._database.close()
