"""A federation without networks: the real server in a process of its own, clients over real connections in threads."""

from __future__ import annotations

import io
import multiprocessing
import random
import secrets
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pemn.errors import NetworkError, PemnError
from pemn.federation.levels import HIGHEST, LOWEST
from pemn.link.client import LinkClient
from pemn.wire.messages import Content, Failure, Metrics, encode
from pemn.wire.spec import Spec
from pemn_client.flower import client_app, node_context, run_app
from pemn_client.node import Node
from pemn_client.store import MemoryStore
from pemn_server.flower import Fleet, run_server_app
from pemn_server.link_grid import LinkGrid
from pemn_server.log import Log
from pemn_server.progress import Progress
from pemn_server.record import DurableRecord
from pemn_server.run import Federation
from pemn_server.settings import StartSettings
from tests.link_rig import wait_until
from tests.networks import model_spec, run_spec

NETWORK = model_spec((40, 50), (10, 40))  # 2,400 weights
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Run:
    """What a server is told."""

    folder: Path
    port: int
    num_clients: int
    num_rounds: int
    cohort: int | None = None
    over_select: float = 1.0
    min_clients: int = 1
    round_timeout_s: float = 60.0

    @property
    def spec(self) -> Spec:
        return run_spec(NETWORK, num_slots=self.num_clients)

    @property
    def rounds(self) -> list[tuple[float, int]]:
        """Time in seconds and resident memory in bytes of the server after each round."""
        path = self.folder / "rounds.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(float(a), int(b)) for a, b in (line.split() for line in lines)]


def serve(run: Run) -> ForkServerProcess:
    """Starts the server; its exit code is 0 when all rounds are done."""
    process = _CONTEXT.Process(target=_serve, args=(run,), daemon=True)
    process.start()
    return process


def _serve(run: Run) -> None:
    settings = StartSettings(listen=f"127.0.0.1:{run.port}", insecure=True)
    (run.folder / "run").mkdir(parents=True)
    grid = LinkGrid(
        settings.listen,
        credentials=None,
        num_slots=run.num_clients,
        num_bits=run.spec.model.num_bits,
    )
    grid.start()
    with (
        DurableRecord(run.folder / "run", settings, run.spec) as record,
        (run.folder / "rounds.txt").open("w", buffering=1) as rounds,
    ):

        def accuracy(_: NDArray[np.float32]) -> float:
            status = Path("/proc/self/statm").read_text().split()
            rounds.write(f"{time.monotonic()} {int(status[1]) * 4096}\n")
            return 0.0

        def federate(fleet: Fleet) -> None:
            Federation(
                run.spec,
                fleet,
                num_rounds=run.num_rounds,
                cohort=run.cohort,
                over_select=run.over_select,
                min_clients=run.min_clients,
                round_timeout_s=run.round_timeout_s,
                wait_timeout_s=60,
                accuracy=accuracy,
                progress=Progress(Log(Console(file=io.StringIO()))),
                record=record,
            ).run()

        run_server_app(grid, federate)
    grid.stop()


class Jitter:
    """A trainer without a network: it wanders."""

    def __init__(self, slot: int, pause_s: float = 0.0) -> None:
        self._slot, self._pause_s = slot, pause_s

    def train(self, start: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        time.sleep(self._pause_s)
        moved = start + np.random.default_rng([self._slot, round_]).normal(0, 5000, start.size)
        return moved.clip(LOWEST, HIGHEST).astype(np.uint16), Metrics(7, 1, 1)


class _Gone(Exception):
    """A client leaves without a word."""


@dataclass
class Crowd:
    """Clients in threads of this process.

    Attributes:
        leaves: Chance that a client leaves instead of doing a task.
        forgets: Chance that one that comes back has lost its store.
        away_s: How long it is away, at most.
        pause_s: How long a client trains.
        may_fail: Whether a client that the server refuses, or cannot understand, just tries again.
    """

    leaves: float = 0.0
    forgets: float = 0.0
    away_s: float = 0.3
    pause_s: float = 0.0
    may_fail: bool = False
    num_left: int = 0
    errors: list[BaseException] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def come(self, run: Run, slots: range, port: int | None = None) -> None:
        """Starts clients that stay until the run is over, or come and go."""
        for slot in slots:
            to = port or run.port
            self._threads.append(threading.Thread(target=self._live, args=(run, slot, to), daemon=True))
            self._threads[-1].start()

    def wait_until_here(self, run: Run) -> None:
        """Waits until the server has closed a round: it listens, and clients are with it."""
        wait_until(lambda: run.rounds, "the first round", 60)

    def wait(self, timeout_s: float) -> None:
        """Waits until all have been told that the run is over."""
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a client has not ended"
        assert not self.errors, self.errors[:3]

    def _live(self, run: Run, slot: int, port: int) -> None:
        chance, client_id, store = random.Random(slot), secrets.token_bytes(16), MemoryStore()
        while True:
            node = Node(slot, store, lambda spec, slot: Jitter(slot, self.pause_s))
            app, context = client_app(lambda _, node=node: node), node_context(slot, run.num_clients)  # type: ignore[misc]

            def handle(action: str, content: bytes) -> bytes:
                if chance.random() < self.leaves:
                    raise _Gone
                return run_app(app, context, action, content)  # noqa: B023

            link = LinkClient(
                f"127.0.0.1:{port}", ca=None, client=client_id, slot=slot, num_slots=run.num_clients
            )
            try:
                link.run(
                    handle,
                    explain=lambda error: encode(Content(error=Failure(error.code, str(error)))),
                    give_up_after_s=10 if self.may_fail else 30,
                )
                return
            except _Gone:
                self.num_left += 1
                time.sleep(chance.uniform(0, self.away_s))
                if chance.random() < self.forgets:
                    store = MemoryStore()
            except NetworkError:
                return  # the server has ended before this client was back
            except PemnError as error:
                if not self.may_fail:
                    self.errors.append(error)
                    return
                time.sleep(0.1)
