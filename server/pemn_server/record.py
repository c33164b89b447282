"""What is kept of a run while it goes on, and what a process that takes it up finds of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Self

from pemn.errors import FileError, RemoteError
from pemn.files import LEDGER_NAME, SUMMARY_NAME, LineLog, read_lines
from pemn.ledger import Entry
from pemn.methods import Server
from pemn.wire.messages import Content, Update, decode, encode
from pemn.wire.spec import Spec
from pemn_server import checkpoint
from pemn_server.checkpoint import Checkpoint
from pemn_server.journal import JOURNAL_NAME, Journal
from pemn_server.outcome import Outcome
from pemn_server.report import MAX_LEDGER_BYTES
from pemn_server.settings import RunOptions

SNAPSHOT_NAME, LAST_SNAPSHOT_NAME = "snapshot.safetensors", "snapshot-before.safetensors"
_LOG = logging.getLogger(__name__)


class Record:
    """Nothing is kept: a run that is stopped is lost.

    Args:
        outcome: What an earlier process has come to, if there was one.
    """

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def votes(self, round_: int) -> Mapping[int, Update]:
        """Returns the votes of a round that an earlier process has taken, by slot."""
        return {}

    def has_closed(self, round_: int) -> bool:
        """Returns whether a round that is in no snapshot takes no more votes."""
        return False

    def keep_vote(self, round_: int, slot: int, update: Update) -> None:
        """Keeps a vote that counts."""

    def keep_end(self, round_: int, entries: Iterable[Entry]) -> None:
        """Keeps that a round takes no more votes, and what its messages cost."""

    def keep_outcome(self, outcome: Outcome) -> None:
        """Keeps what a run has come to after a round."""


class LedgerRecord(Record):
    """What messages cost, and no more.

    Args:
        folder: Of the run; it exists.
        outcome: What an earlier process has come to, if there was one.
        num_lines: How many lines of the ledger stay.
    """

    def __init__(self, folder: Path, outcome: Outcome | None = None, num_lines: int | None = None) -> None:
        super().__init__(outcome)
        self._log = LineLog(folder / LEDGER_NAME, num_lines)

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def keep_end(self, round_: int, entries: Iterable[Entry]) -> None:
        """See `Record`."""
        self._log.write(asdict(entry) for entry in entries)


class DurableRecord(LedgerRecord):
    """A run that a server goes on with, wherever it was killed.

    A vote counts once it is in the journal; until then the client is asked for it again. A round is closed once the
    journal says so; the same votes then close it again, to the same public state. The last two snapshots are kept, and
    the journal reaches back to the older one.

    Args:
        folder: Of the run; it exists.
        settings: What it is, or was, begun with.
        spec: Of the run, if it is new; else the folder says.

    Raises:
        ConfigError: If another server is at work in the folder, or it was begun with other options.
        FileError: If what is there is damaged, or it cannot be written.
    """

    def __init__(self, folder: Path, settings: RunOptions, spec: Spec | None = None) -> None:
        self._folder, self._settings = folder, settings
        self._journal = Journal(folder / JOURNAL_NAME)  # first: it keeps another server away
        try:
            kept = _load(folder, settings) if spec is None else None
            if kept is None:
                assert spec is not None
                kept = Checkpoint(spec, Outcome(Server.of(spec).start()), 0, {})
            self.spec, self._server = kept.spec, Server.of(kept.spec)
            if spec is not None:
                self._snapshot(kept.outcome)
            self._closed = set(self._journal.closed())
            self.last_round = max([kept.outcome.state.public.round, *self._closed])
            super().__init__(folder, kept.outcome, len(self.entries()))
        except BaseException:
            self._journal.close()
            raise

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._journal.close()

    def entries(self) -> list[Entry]:
        """Returns what an earlier process has written into the ledger, up to the last round that was closed."""
        return read_entries(self._folder, self.last_round)

    def votes(self, round_: int) -> Mapping[int, Update]:
        """See `Record`.

        Raises:
            FileError: If one is damaged.
        """
        votes: dict[int, Update] = {}
        for slot, data in self._journal.votes(round_).items():
            try:
                update = decode(data).update
            except RemoteError as error:
                raise FileError(f"vote of slot {slot} in the journal: {error}", where=self._folder) from error
            if update is None:
                raise FileError(f"vote of slot {slot} in the journal is none", where=self._folder)
            votes[slot] = update
        return votes

    def has_closed(self, round_: int) -> bool:
        """See `Record`."""
        return round_ in self._closed

    def keep_vote(self, round_: int, slot: int, update: Update) -> None:
        """See `Record`."""
        self._journal.add(round_, slot, encode(Content(update=update)))

    def keep_end(self, round_: int, entries: Iterable[Entry]) -> None:
        """See `Record`; the books first: a round that is closed has its own."""
        super().keep_end(round_, entries)
        self._journal.close_round(round_)

    def keep_outcome(self, outcome: Outcome) -> None:
        """See `Record`."""
        self._snapshot(outcome)
        # The snapshot before this one, should this one be damaged, goes on with the votes of this round.
        self._journal.drop_before(outcome.state.public.round)

    def _snapshot(self, outcome: Outcome) -> None:
        path = self._folder / SNAPSHOT_NAME
        if path.exists():
            path.replace(self._folder / LAST_SNAPSHOT_NAME)
        checkpoint.save(path, self._settings, self._server, Checkpoint(self.spec, outcome, 0, {}))


def is_begun(folder: Path) -> bool:
    """Returns whether a folder holds a run that a server can go on with."""
    names = (SNAPSHOT_NAME, LAST_SNAPSHOT_NAME)
    return any((folder / name).exists() for name in names) and not (folder / SUMMARY_NAME).exists()


def read_entries(folder: Path, last: int | None = None) -> list[Entry]:
    """Returns the lines of a run's ledger.

    Args:
        folder: Of the run; without a ledger there are no lines.
        last: The last round whose lines are wanted; all if not given.

    Raises:
        FileError: If they are no lines of a ledger.
    """
    path = folder / LEDGER_NAME
    if not path.exists():
        return []
    lines = read_lines(path, max_bytes=MAX_LEDGER_BYTES, what="ledger")
    try:
        entries = [Entry(**line) for line in lines]
        return [entry for entry in entries if last is None or entry.round <= last]
    except TypeError as error:
        raise FileError(f"ledger makes no sense, {error}", where=path) from error


def _load(folder: Path, settings: RunOptions) -> Checkpoint:
    """Reads the last snapshot, or the one before where that is damaged or was not finished."""
    last, before = folder / SNAPSHOT_NAME, folder / LAST_SNAPSHOT_NAME
    if not before.exists():
        return checkpoint.load(last, settings)
    try:
        return checkpoint.load(last, settings)
    except FileError as error:
        kept = checkpoint.load(before, settings)
        if last.exists():
            round_ = kept.outcome.state.public.round
            _LOG.warning("%s: going on from the snapshot before, after round %d", error, round_)
        return kept
