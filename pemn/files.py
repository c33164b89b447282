"""Files that are whole or absent: atomic writes, bounded reads, logs of JSON lines, run folders."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pemn.errors import ConfigError, FileError, LocalError

LEDGER_NAME = "ledger.jsonl"
SUMMARY_NAME = "summary.json"
REPORT_NAME = "report.html"


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Writes a file so that a reader, or a machine after a power cut, sees all of it or none.

    Args:
        path: Where to; a link is followed. What was there before is replaced.
        data: All of the contents.
        mode: Permissions of the file, less the process's umask.

    Raises:
        FileError: If it cannot be written; what was there before is untouched.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise FileError("cannot write over something that is no regular file", where=path)
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:  # Ctrl-C too leaves nothing behind
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise FileError(f"cannot write file, {_reason(error)}", where=path) from error


def read_bytes(path: Path, *, max_bytes: int, what: str) -> bytes:
    """Reads a file of bounded size.

    Args:
        path: The file.
        max_bytes: The most that it may hold; no more than this is taken into memory.
        what: What it should be, in a word or two, for the message.

    Raises:
        FileError: If it is missing, unreadable or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise FileError(f"cannot read {what}, {_reason(error)}", where=path) from error
    if len(data) > max_bytes:
        raise FileError(f"{what} is too large", wanted=f"at most {max_bytes} bytes", where=path)
    return data


class LineLog:
    """Appends JSON objects, one a line, to a file that is never left with half a line.

    A line that a crash cut off is removed when the log is opened again.

    Args:
        path: The file; created if it is missing.
        num_lines: How many of its lines stay; what is behind them is of a run that did not get so far as to keep its
            state, and is removed. None: all.

    Raises:
        FileError: If it cannot be opened for appending, or has fewer lines.
    """

    def __init__(self, path: Path, num_lines: int | None = None) -> None:
        self._path = path
        try:
            self._file = path.open("a+b", buffering=0)
            try:
                self._num_bytes = _end_of_lines(self._file.fileno())
                if num_lines is not None:
                    self._num_bytes = self._end_of_line(num_lines)
                os.ftruncate(self._file.fileno(), self._num_bytes)
                _sync_folder(path.parent)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise FileError(f"cannot open log, {_reason(error)}", where=path) from error

    def _end_of_line(self, num_lines: int) -> int:
        """Returns the position after so many lines."""
        self._file.seek(0)
        lengths = [len(line) for line in itertools.islice(self._file, num_lines)]
        if len(lengths) < num_lines:
            raise FileError("log has fewer lines than it should", wanted=num_lines, where=self._path)
        return sum(lengths)

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends records and waits until they are on the disk; all of them or none.

        Raises:
            FileError: If they cannot be written.
            LocalError: If a record is not JSON (NaN and infinity are not).
        """
        try:
            lines = [json.dumps(record, separators=(",", ":"), allow_nan=False) for record in records]
        except (TypeError, ValueError) as error:
            raise LocalError(f"record is not JSON, {error}", where=self._path) from error
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), self._num_bytes)
                raise
        except OSError as error:
            raise FileError(f"cannot write log, {_reason(error)}", where=self._path) from error
        self._num_bytes += len(data)

    def close(self) -> None:
        """Closes the file; writing after it is a bug."""
        self._file.close()

    def __enter__(self) -> LineLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path, *, max_bytes: int, what: str) -> list[dict[str, Any]]:
    """Reads what a `LineLog` wrote; a last line without an end is left out, as an interrupted write.

    Raises:
        FileError: If the file is missing, unreadable, too large or holds a line that is no JSON object.
    """
    *lines, _ = read_bytes(path, max_bytes=max_bytes, what=what).split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise FileError(f"{what} has a line that is no JSON object", where=f"{path}, line {number}")
        records.append(record)
    return records


def prepare_run_dir(path: Path) -> None:
    """Makes the folder that a new run writes its results to.

    Raises:
        ConfigError: If it is no folder or holds the results of another run.
        FileError: If it cannot be made or written to.
    """
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise ConfigError("the run's folder is not a folder", where=part)
    for name in (SUMMARY_NAME, LEDGER_NAME):
        if (path / name).exists():
            raise ConfigError(
                "the run's folder holds the results of another run",
                got=name,
                wanted="a new or an empty folder; name another one or move this one away",
                where=path,
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{secrets.token_hex(4)}.part"  # an hour of training is no time to find this out
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise FileError(f"cannot write to the run's folder, {_reason(error)}", where=path) from error


def _end_of_lines(descriptor: int) -> int:
    """Returns the position after the last newline of a file, reading backwards from its end."""
    end = os.fstat(descriptor).st_size
    while end:
        begin = max(0, end - 65_536)
        if at := os.pread(descriptor, end - begin, begin).rfind(b"\n") + 1:
            return begin + at
        end = begin
    return 0


def _sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
