"""What a client keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pytest
from numpy.typing import NDArray

from pemn.errors import FileError
from pemn.federation.public import PublicState
from pemn.methods import Memory
from pemn_client.store import FileStore, MemoryStore
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((4, 5)))
STATE = PublicState(3, np.arange(-10, 10, dtype=np.int8))


def filled(folder: Path) -> FileStore:
    store = FileStore(folder)
    store.save_spec(SPEC)
    store.save_state(SPEC, STATE)
    return store


def test_an_empty_store(tmp_path: Path) -> None:
    assert FileStore(tmp_path / "new").load() is None
    assert MemoryStore().load() is None


def test_what_is_saved_comes_back_after_a_restart(tmp_path: Path) -> None:
    filled(tmp_path)
    kept = FileStore(tmp_path).load()
    assert kept is not None
    spec, state = kept
    assert spec == SPEC
    assert state is not None
    assert (state.round, state.values.tolist()) == (3, STATE.values.tolist())


def test_a_spec_without_a_state(tmp_path: Path) -> None:
    FileStore(tmp_path).save_spec(SPEC)
    assert FileStore(tmp_path).load() == (SPEC, None)


def test_the_spec_of_another_run_drops_the_state(tmp_path: Path) -> None:
    other = run_spec(model_spec((4, 5)), run_id=99)
    filled(tmp_path).save_spec(other)
    assert FileStore(tmp_path).load() == (other, None)


def test_the_client_id_stays(tmp_path: Path) -> None:
    first = FileStore(tmp_path / "a").client_id()
    assert len(first) == 16
    assert FileStore(tmp_path / "a").client_id() == first
    assert FileStore(tmp_path / "b").client_id() != first


def test_a_client_id_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "client_id").write_bytes(b"short")
    with pytest.raises(FileError, match="client id: got 5 bytes; wanted 16"):
        FileStore(tmp_path).client_id()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
@pytest.mark.parametrize("name", ["spec.bin", "state.bin"])
def test_a_damaged_file_counts_as_missing(tmp_path: Path, name: str, damage: str) -> None:
    filled(tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x80
    else:
        del data[len(data) // 2 if damage == "cut" else 0 :]
    path.write_bytes(data)
    kept = FileStore(tmp_path).load()
    if name == "state.bin":
        assert kept == (SPEC, None)
    else:
        # A flipped bit may still be a spec, but then of another run or network: its state does not fit.
        assert kept is None or kept[0] != SPEC


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot make the store"):
        FileStore(tmp_path / "file" / "store")


def test_clients_of_a_simulation_share_public_states() -> None:
    shared: WeakValueDictionary[tuple[int, int], PublicState] = WeakValueDictionary()
    stores = [MemoryStore(shared) for _ in range(3)]
    for store in stores:
        store.save_spec(SPEC)
        store.save_state(SPEC, PublicState(1, np.zeros(20, np.int8)))
    states = [kept[1] for store in stores if (kept := store.load())]
    assert len({id(state) for state in states}) == 1
    del states, kept
    for store in stores:
        store.save_state(SPEC, PublicState(2, np.zeros(20, np.int8)))
    assert sorted(shared) == [(SPEC.run_id, 2)]


def test_two_clients_do_not_share_a_store(tmp_path: Path) -> None:
    first, second = FileStore(tmp_path), FileStore(tmp_path)
    with first.locked(), pytest.raises(FileError, match="in use by another client"), second.locked():
        pass
    with second.locked():
        pass


@pytest.mark.parametrize("earlier", [None, np.arange(20, dtype=np.float32)])
def test_a_clients_own_memory_comes_back(earlier: NDArray[np.float32] | None, tmp_path: Path) -> None:
    later = np.linspace(-1, 1, 20, dtype=np.float32)
    filled(tmp_path).save_memory(SPEC, Memory(4, earlier, later))
    found = FileStore(tmp_path).load_memory(SPEC)
    assert found is not None
    assert found.round == 4
    assert np.array_equal(found.later, later)
    assert (found.earlier is None) == (earlier is None)
    if found.earlier is not None and earlier is not None:
        assert np.array_equal(found.earlier, earlier)
    assert FileStore(tmp_path).load_memory(replace(SPEC, run_id=9)) is None
    FileStore(tmp_path).save_spec(SPEC)  # a new run owes nothing
    assert FileStore(tmp_path).load_memory(SPEC) is None


def test_a_damaged_memory_is_none(tmp_path: Path) -> None:
    filled(tmp_path).save_memory(SPEC, Memory(4, None, np.ones(20, np.float32)))
    path = tmp_path / "memory.bin"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    assert FileStore(tmp_path).load_memory(SPEC) is None
