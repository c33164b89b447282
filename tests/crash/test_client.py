"""kill -9 of a client at any point of a run: no round is lost, and it comes back as who it was."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.crash.actors import CLIENT_POINTS
from tests.crash.place import Place, ends


@pytest.mark.parametrize("point", CLIENT_POINTS)
def test_a_killed_client_comes_back(point: str, place: Place, whole: dict[str, Any]) -> None:
    server, other, killed = place.serve(), place.client(0), place.client(1, point)
    assert ends(killed) == -signal.SIGKILL, (place.folder / "client-1.log").read_text()
    again = place.client(1)
    assert ends(server) == 0, place.server_log.read_text()
    assert [ends(other), ends(again)] == [0, 0]
    assert place.results() == whole
    ledger = [json.loads(line) for line in (place.run_dir / "ledger.jsonl").read_text().splitlines()]
    joined = [entry["slot"] for entry in ledger if "spec" in entry["payload_by_kind"]]
    assert joined == [0, 1]  # once each: nobody gets the seed after a round has begun
    assert json.loads((place.run_dir / "summary.json").read_text())["abandoned_rounds"] == 0
