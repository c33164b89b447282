"""What clients share a folder for, and what is one client's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pemn.errors import FileError
from pemn.federation.public import PublicState
from pemn.methods import Memory, Server
from pemn_client.shared_store import SharedStore
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((4, 5)))
OTHER = run_spec(model_spec((4, 5)), run_id=99)
MEMORY = Memory(2, np.arange(20, dtype=np.float32), np.ones(20, np.float32))


def state(round_: int, first: int = 0) -> PublicState:
    return PublicState(round_, np.arange(first, first + 20, dtype=np.int8))


class Client:
    """A client whose every task is done by another process."""

    def __init__(self, folder: Path, slot: int) -> None:
        self.folder, self.slot = folder, slot
        self.notes: dict[str, Any] = {}

    @property
    def store(self) -> SharedStore:
        return SharedStore(self.folder, self.slot, self.notes)

    def round(self) -> int | None:
        kept = self.store.load()
        return None if kept is None or kept[1] is None else kept[1].round


def names(folder: Path, kind: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{kind}-*"))


def test_clients_share_a_state_and_each_has_its_own_place(tmp_path: Path) -> None:
    one, two, new = (Client(tmp_path, slot) for slot in range(3))
    for client in (one, two):
        client.store.save_spec(SPEC)
        client.store.save_state(SPEC, state(1))
    assert len(names(tmp_path, "state")) == len(names(tmp_path, "spec")) == 1
    two.store.save_state(SPEC, state(2, first=3))
    kept = one.store.load(), two.store.load()
    assert [spec for spec, _ in filter(None, kept)] == [SPEC, SPEC]
    assert [s.values[0] for _, s in filter(None, kept) if s] == [0, 3]
    assert new.store.load() is None  # what lies there is not for who has no place in the run
    assert set(one.notes) == {"run-id", "round", "hash"}


def test_two_states_of_one_round_are_two(tmp_path: Path) -> None:
    """A server that went back learns something else."""
    one, two = Client(tmp_path, 0), Client(tmp_path, 1)
    for client, first in ((one, 0), (two, 5)):
        client.store.save_spec(SPEC)
        client.store.save_state(SPEC, state(1, first))
    assert len(names(tmp_path, "state")) == 2
    assert [c.store.load()[1].values[0] for c in (one, two)] == [0, 5]  # type: ignore[index, union-attr]


def test_old_states_go_when_no_server_builds_on_them(tmp_path: Path) -> None:
    slow, quick = Client(tmp_path, 0), Client(tmp_path, 1)
    for client in (slow, quick):
        client.store.save_spec(SPEC)
        client.store.save_state(SPEC, state(1))
    last = Server.past_rounds + 2
    for round_ in range(2, last + 1):
        quick.store.save_state(SPEC, state(round_))
    assert slow.round() == 1
    quick.store.save_state(SPEC, state(last + 1))
    assert slow.round() is None  # it gets a keyframe
    assert slow.store.load() == (SPEC, None)
    assert quick.round() == last + 1


def test_the_spec_of_another_run_drops_what_is_of_this_one(tmp_path: Path) -> None:
    client, neighbour = Client(tmp_path, 0), Client(tmp_path, 1)
    for each in (client, neighbour):
        each.store.save_spec(SPEC)
        each.store.save_state(SPEC, state(1))
        each.store.save_memory(SPEC, MEMORY)
    (tmp_path / "notes.bin").write_bytes(b"not ours")
    client.store.save_spec(OTHER)
    assert client.store.load() == (OTHER, None)
    assert neighbour.store.load() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.bin", f"spec-{OTHER.run_id:016x}.bin"]


def test_memories_are_each_clients_own(tmp_path: Path) -> None:
    one, two = Client(tmp_path, 1), Client(tmp_path, 11)
    for client in (one, two):
        client.store.save_spec(SPEC)
    one.store.save_memory(SPEC, MEMORY)
    assert two.store.load_memory(SPEC) is None
    kept = one.store.load_memory(SPEC)
    assert kept is not None
    assert (kept.round, kept.later.tolist()) == (2, MEMORY.later.tolist())
    two.store.save_spec(SPEC)  # a client that joins again loses its own and nobody else's
    one.store.save_spec(SPEC)
    assert one.store.load_memory(SPEC) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
@pytest.mark.parametrize("kind", ["spec", "state"])
def test_a_damaged_file_counts_as_missing_and_is_written_anew(kind: str, damage: str, tmp_path: Path) -> None:
    client = Client(tmp_path, 0)
    client.store.save_spec(SPEC)
    client.store.save_state(SPEC, state(1))
    (path,) = tmp_path.glob(f"{kind}-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    if damage == "gone":
        path.unlink()
    assert client.store.load() == (None if kind == "spec" else (SPEC, None))
    client.store.save_spec(SPEC)
    client.store.save_state(SPEC, state(1))
    assert client.round() == 1


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot make the store"):
        SharedStore(tmp_path / "file" / "store", 0, {})
