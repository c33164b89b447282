"""The same small federation on every engine, run once; each run with all that went over the wire."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pemn.ledger import Direction
from pemn.wire.messages import Content, decode, encode
from pemn_client.settings import StartSettings as ClientSettings
from pemn_client.start import start as start_client
from pemn_server.flower import PemnGrid
from pemn_server.log import Log
from pemn_server.settings import SimulateSettings, StartSettings
from pemn_server.simulation import InProcessGrid, simulate
from pemn_server.start import start
from tests.proxy import CountingProxy

NUM_CLIENTS = 3
OPTIONS: dict[str, Any] = {
    "model": "mlp-48-33",  # 48 * 33 and 33 * 10 are no multiples of 8
    "rounds": 4,
    "epochs": 3,
    "seed": 2**64 - 5,
    "threads": 1,
    "partition": "dirichlet:1.0",
    "clients": NUM_CLIENTS,
    "min_clients": NUM_CLIENTS,
}


@dataclass
class Traffic:
    """One message."""

    slot: int
    direction: Direction
    data: bytes

    @property
    def content(self) -> Content:
        return decode(self.data)


@dataclass
class Run:
    """A run and what it left behind."""

    engine: str
    folder: Path
    traffic: list[Traffic]

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return summary

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "ledger.jsonl").read_text().splitlines()]


def run_in_process(folder: Path) -> None:
    simulate(SimulateSettings(**OPTIONS), folder, Log(Console(quiet=True)))


def run_over_grpc(folder: Path, cut_every_s: float | None = None) -> None:
    """Clients in threads; `cut_every_s` breaks all their connections, again and again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    proxy = CountingProxy(port)
    failures: list[BaseException] = []
    over = threading.Event()

    def client(slot: int) -> None:
        settings = ClientSettings(
            server=f"127.0.0.1:{proxy.port}",
            insecure=True,
            shard=f"{slot}/{NUM_CLIENTS}",
            give_up_after_s=60,  # a machine that is busy may need many of the cut connections to begin
            store=folder / f"store-{slot}",
            threads=1,
        )
        try:
            start_client(settings)
        except BaseException as error:
            failures.append(error)

    def cut() -> None:
        while not over.wait(cut_every_s):
            proxy.cut()

    threads = [threading.Thread(target=client, args=(slot,), daemon=True) for slot in range(NUM_CLIENTS)]
    if cut_every_s is not None:
        threading.Thread(target=cut, daemon=True).start()
    for thread in threads:
        thread.start()
    try:
        # Clients that fail must not be waited for without end.
        settings = StartSettings(listen=f"127.0.0.1:{port}", insecure=True, wait_timeout_s=60, **OPTIONS)
        start(settings, folder, Log(Console(quiet=True)))
        over.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
    finally:
        over.set()
        proxy.close()
    assert not failures


ENGINES = {"inprocess": run_in_process, "grpc": run_over_grpc}


def watch(patch: pytest.MonkeyPatch, traffic: list[Traffic]) -> None:
    """Notes every message where a grid counts it: as its bytes, or as what would be its bytes."""
    note, count = PemnGrid._note, InProcessGrid._count

    def noting(grid: PemnGrid, slot: int, direction: Direction, content: bytes, framed_bytes: int) -> None:
        traffic.append(Traffic(slot, direction, content))
        note(grid, slot, direction, content, framed_bytes)

    def counting(
        grid: InProcessGrid,
        slot: int,
        direction: Direction,
        message_id: int,
        number: bytes,
        action: str = "",
    ) -> None:
        traffic.append(Traffic(slot, direction, encode(grid._desk.look(number))))
        count(grid, slot, direction, message_id, number, action)

    patch.setattr(PemnGrid, "_note", noting)
    patch.setattr(InProcessGrid, "_count", counting)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    found = {}
    for engine, run in ENGINES.items():
        traffic: list[Traffic] = []
        with pytest.MonkeyPatch.context() as patch:
            watch(patch, traffic)
            folder = tmp_path_factory.mktemp(f"{engine}-{secrets.token_hex(2)}")
            run(folder)
        found[engine] = Run(engine, folder, traffic)
    return found


@pytest.fixture(params=sorted(ENGINES))
def run(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Run:
    return runs[request.param]
