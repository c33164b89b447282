"""What a client keeps between tasks: the spec of its run and the public state it has.

On a device it is a folder, so that the seed and the network come only once, whatever happens to the process. In a
simulation it is the memory, and clients that have the same public state share one copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np

from pemn.errors import FileError, RemoteError
from pemn.federation.public import PublicState
from pemn.files import read_bytes, write_atomic
from pemn.methods import Memory, method_of
from pemn.wire.limits import MAX_SPEC_BYTES
from pemn.wire.spec import Spec

_LOG = logging.getLogger(__name__)
_MAGIC = b"PEMNST\x00\x01"
_HEAD = struct.Struct("<QI")
_STATE_NAME, _MEMORY_NAME = "state.bin", "memory.bin"


class Store(Protocol):
    """Where a client's spec, public state and memory are kept."""

    def load(self) -> tuple[Spec, PublicState | None] | None:
        """Returns what was saved; None, or no state, where there is nothing or it cannot be trusted."""
        ...

    def save_spec(self, spec: Spec) -> None:
        """Keeps the spec of a run, and drops the state of any other."""
        ...

    def save_state(self, spec: Spec, state: PublicState) -> None:
        """Keeps the public state."""
        ...

    def load_memory(self, spec: Spec) -> Memory | None:
        """Returns what was saved for a run, if anything."""
        ...

    def save_memory(self, spec: Spec, memory: Memory) -> None:
        """Keeps the memory."""
        ...


class MemoryStore:
    """A store that ends with the process.

    Args:
        shared: Public states by run and round: the clients of a simulation give the same dictionary, so that those
            with the same public state hold one copy of it. It keeps as many rounds as some client needs.
    """

    def __init__(self, shared: WeakValueDictionary[tuple[int, int], PublicState] | None = None) -> None:
        self._shared = WeakValueDictionary() if shared is None else shared
        self._spec: Spec | None = None
        self._state: PublicState | None = None
        self._memory: Memory | None = None

    def load(self) -> tuple[Spec, PublicState | None] | None:
        """See `Store`."""
        return None if self._spec is None else (self._spec, self._state)

    def save_spec(self, spec: Spec) -> None:
        """See `Store`."""
        self._spec, self._state, self._memory = spec, None, None

    def save_state(self, spec: Spec, state: PublicState) -> None:
        """See `Store`."""
        shared = self._shared.get((spec.run_id, state.round))
        # A server that went back learns something else.
        if shared is None or not (shared is state or np.array_equal(shared.values, state.values)):
            self._shared[spec.run_id, state.round] = shared = state
        self._state = shared

    def load_memory(self, spec: Spec) -> Memory | None:
        """See `Store`."""
        return self._memory

    def save_memory(self, spec: Spec, memory: Memory) -> None:
        """See `Store`."""
        self._memory = memory


class FileStore:
    """A folder: `spec.bin`, `state.bin`, `memory.bin` and `client_id`, each written whole or not at all, and a lock.

    Args:
        folder: Made if it is missing.

    Raises:
        FileError: If it cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make the store, {error.strerror}", where=folder) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other clients out of the store for as long as the context lasts.

        Raises:
            FileError: If another client uses it.
        """
        with (self._folder / "lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise FileError("the store is in use by another client", where=self._folder) from error
            yield

    def client_id(self) -> bytes:
        """Returns the 16 random bytes by which a server knows this client again."""
        path = self._folder / "client_id"
        if not path.exists():
            write_atomic(path, secrets.token_bytes(16), mode=0o600)
        data = read_bytes(path, max_bytes=16, what="client id")
        if len(data) != 16:
            raise FileError("client id", got=f"{len(data)} bytes", wanted="16", where=path)
        return data

    def load(self) -> tuple[Spec, PublicState | None] | None:
        """See `Store`; a damaged file counts as missing, and the server is asked again."""
        spec = read_spec(self._folder / "spec.bin")
        return None if spec is None else (spec, read_state(self._folder / _STATE_NAME, spec))

    def save_spec(self, spec: Spec) -> None:
        """See `Store`."""
        for name in (_STATE_NAME, _MEMORY_NAME):
            (self._folder / name).unlink(missing_ok=True)
        write_spec(self._folder / "spec.bin", spec)

    def save_state(self, spec: Spec, state: PublicState) -> None:
        """See `Store`."""
        write_state(self._folder / _STATE_NAME, spec, state)

    def load_memory(self, spec: Spec) -> Memory | None:
        """See `Store`; a damaged memory is none: what it owed is lost."""
        return read_memory(self._folder / _MEMORY_NAME, spec)

    def save_memory(self, spec: Spec, memory: Memory) -> None:
        """See `Store`."""
        write_memory(self._folder / _MEMORY_NAME, spec, memory)


def read_spec(path: Path) -> Spec | None:
    """Returns the spec in a file; None if there is none, or it is damaged."""
    if not path.exists():
        return None
    try:
        return Spec.from_bytes(read_bytes(path, max_bytes=MAX_SPEC_BYTES, what="spec"))
    except RemoteError as error:
        _LOG.warning("the store is damaged and will be filled again: %s", error)
        return None


def write_spec(path: Path, spec: Spec) -> None:
    """Writes a spec into a file."""
    write_atomic(path, spec.to_bytes(), mode=0o600)


def read_state(path: Path, spec: Spec) -> PublicState | None:
    """Returns the public state in a file; None if there is none of this run, or it is damaged."""
    like = method_of(spec).start()[0].values
    found = _read(path, spec, like.nbytes)
    if found is None or len(found[1]) != like.nbytes:
        return None
    return PublicState(found[0], np.frombuffer(found[1], like.dtype))


def write_state(path: Path, spec: Spec, state: PublicState) -> None:
    """Writes a public state into a file."""
    _write(path, spec, state.round, state.values.tobytes())


def read_memory(path: Path, spec: Spec) -> Memory | None:
    """Returns a client's memory in a file; None if there is none of this run, or it is damaged."""
    found = _read(path, spec, 9 * spec.model.num_params)
    if found is None:
        return None
    round_, data = found
    arrays = np.frombuffer(data[1:], np.float32).reshape(-1, spec.model.num_params)
    return Memory(round_, arrays[0] if data[0] else None, arrays[-1])


def write_memory(path: Path, spec: Spec, memory: Memory) -> None:
    """Writes a client's memory into a file."""
    parts = [part.astype("<f4").tobytes() for part in (memory.earlier, memory.later) if part is not None]
    _write(path, spec, memory.round, bytes([memory.earlier is not None]) + b"".join(parts))


def _write(path: Path, spec: Spec, round_: int, data: bytes) -> None:
    body = _MAGIC + _HEAD.pack(spec.run_id, round_) + data
    write_atomic(path, body + hashlib.sha256(body).digest(), mode=0o600)


def _read(path: Path, spec: Spec, max_bytes: int) -> tuple[int, bytes] | None:
    """Returns round and data of a file of this run, if there is one that is whole."""
    if not path.exists():
        return None
    data = read_bytes(path, max_bytes=max_bytes + 4096, what=path.name)
    body, digest = data[:-32], data[-32:]
    head = len(_MAGIC) + _HEAD.size
    if hashlib.sha256(body).digest() != digest or not body.startswith(_MAGIC) or len(body) <= head:
        _LOG.warning("%s is damaged", path)
        return None
    run_id, round_ = _HEAD.unpack_from(body, len(_MAGIC))
    return (round_, body[head:]) if run_id == spec.run_id else None
