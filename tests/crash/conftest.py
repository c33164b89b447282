"""A federation, and what it comes to when nothing happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.place import CLIENTS, ROUNDS, Place, ends


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a run comes to that nothing happens to, and in which nothing is unpickled."""
    place = Place(tmp_path_factory.mktemp("whole"), is_watched=True)
    try:
        server, clients = place.serve(), place.clients()
        assert ends(server) == 0, place.server_log.read_text()
        assert [ends(client) for client in clients] == [0] * CLIENTS
        assert place.trained() == [(s, r) for s in range(CLIENTS) for r in range(1, ROUNDS + 1)]
        yield place.results()
    finally:
        place.close()
