"""What clients on Flower's own engines keep: each its place in the run with Flower, the public states in one folder.

Flower starts a process a message, or moves a client from one Ray actor to another, and carries a small state along with
it: which run the client is in, and round and hash of the public state that it has. The states lie in a folder, one
file a round for all clients that share it, and so does what a method keeps of each client's own.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from pemn.errors import FileError
from pemn.federation.public import PublicState
from pemn.methods import Memory, Server, method_of
from pemn.wire.spec import Spec
from pemn_client.store import read_memory, read_spec, read_state, write_memory, write_spec, write_state

_RUN, _ROUND, _HASH = "run-id", "round", "hash"
_NAME = re.compile(r"(?:spec|state|memory)-([0-9a-f]{16})(?:-([0-9]+)-[0-9a-f]+)?(?:-slot[0-9]+)?\.bin")


class SharedStore:
    """One client's store in a folder that others may use for the same run at the same time.

    Args:
        folder: Made if it is missing.
        slot: The client's number.
        notes: Kept by Flower from message to message: run, round and hash, and nothing else.

    Raises:
        FileError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, slot: int, notes: MutableMapping[str, Any]) -> None:
        self._folder, self._slot, self._notes = folder, slot, notes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make the store, {error.strerror}", where=folder) from error

    def load(self) -> tuple[Spec, PublicState | None] | None:
        """See `Store`; a file that is missing or damaged is as if there had been none, and the server is asked."""
        run_id = self._notes.get(_RUN)
        spec = read_spec(self._folder / f"spec-{run_id}.bin") if isinstance(run_id, str) else None
        if spec is None or f"{spec.run_id:016x}" != run_id:
            return None
        round_, wanted = self._notes.get(_ROUND), self._notes.get(_HASH)
        if not isinstance(round_, int) or not isinstance(wanted, bytes):
            return spec, None
        path = self._state_path(spec, round_, wanted)
        state = read_state(path, spec)
        if state is None or (state.round, state.hash(spec.run_id)) != (round_, wanted):
            path.unlink(missing_ok=True)  # else it would be taken for one that has been saved
            return spec, None
        return spec, state

    def save_spec(self, spec: Spec) -> None:
        """See `Store`; files of other runs go, this client's place in this run begins anew."""
        for path, run_id, _ in self._files():
            if run_id != spec.run_id:
                path.unlink(missing_ok=True)
        path = self._folder / f"spec-{spec.run_id:016x}.bin"
        if read_spec(path) != spec:
            write_spec(path, spec)
        self._memory_path(spec).unlink(missing_ok=True)
        self._notes.clear()
        self._notes[_RUN] = f"{spec.run_id:016x}"

    def save_state(self, spec: Spec, state: PublicState) -> None:
        """See `Store`; the first client that has a state writes it for all."""
        digest = state.hash(spec.run_id)
        path = self._state_path(spec, state.round, digest)
        if not path.exists():
            write_state(path, spec, state)
            # Older ones a server no longer builds on: it sends their owners what they need from the start.
            kept = 1 if method_of(spec).complete else Server.past_rounds + 1
            for old, run_id, round_ in self._files():
                if run_id == spec.run_id and round_ is not None and round_ < state.round - kept:
                    old.unlink(missing_ok=True)
        self._notes.update({_ROUND: state.round, _HASH: digest})

    def load_memory(self, spec: Spec) -> Memory | None:
        """See `Store`."""
        return read_memory(self._memory_path(spec), spec)

    def save_memory(self, spec: Spec, memory: Memory) -> None:
        """See `Store`."""
        write_memory(self._memory_path(spec), spec, memory)

    def _state_path(self, spec: Spec, round_: int, digest: bytes) -> Path:
        return self._folder / f"state-{spec.run_id:016x}-{round_}-{digest.hex()}.bin"

    def _memory_path(self, spec: Spec) -> Path:
        return self._folder / f"memory-{spec.run_id:016x}-slot{self._slot}.bin"

    def _files(self) -> list[tuple[Path, int, int | None]]:
        """Returns path, run and round of the files that are ours; only public states have a round."""
        found = [(path, _NAME.fullmatch(path.name)) for path in self._folder.iterdir()]
        return [(path, int(m[1], 16), int(m[2]) if m[2] else None) for path, m in found if m is not None]
