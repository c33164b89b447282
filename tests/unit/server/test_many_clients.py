"""A simulation of thousands of clients: memory grows with the network and the cohort, hardly with their number."""

from __future__ import annotations

import gc
import io
import tracemalloc

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pemn.federation.levels import HIGHEST, LOWEST
from pemn.wire.messages import Metrics
from pemn_server.flower import Fleet, run_server_app
from pemn_server.log import Log
from pemn_server.progress import Progress
from pemn_server.record import Record
from pemn_server.run import Federation
from pemn_server.simulation import Clients, InProcessGrid
from tests.networks import model_spec, run_spec

NETWORK = model_spec((100, 400), (10, 100))  # 41,000 weights
COHORT, ROUNDS = 5, 3
BYTES_A_CLIENT = 6000
"""For its app's context, its node, its store and its lines of the ledger; a state of its own would be 41 kB."""


class Jitter:
    """A trainer without a network."""

    def __init__(self, slot: int) -> None:
        self._slot = slot

    def train(self, start: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        moved = start + np.random.default_rng([self._slot, round_]).normal(0, 5000, start.size)
        return moved.clip(LOWEST, HIGHEST).astype(np.uint16), Metrics(7, 1, 1)


def kept_memory(num_clients: int) -> int:
    """Returns what a simulation that has ended still holds, in bytes: all clients have the last public state."""
    spec = run_spec(NETWORK, num_slots=num_clients)
    tracemalloc.start()
    try:
        grid = InProcessGrid(Clients(lambda spec, slot: Jitter(slot), num_clients))

        def run(fleet: Fleet) -> None:
            federation = Federation(
                spec,
                fleet,
                num_rounds=ROUNDS,
                min_clients=1,
                cohort=COHORT,
                round_timeout_s=None,
                wait_timeout_s=None,
                accuracy=lambda _: 0.0,
                progress=Progress(Log(Console(file=io.StringIO()))),
                record=Record(),
            )
            assert federation.run().state.public.round == ROUNDS

        run_server_app(grid, run)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_memory_hardly_grows_with_the_number_of_clients() -> None:
    few, many = 10, 210
    kept_memory(few)  # caches and compiled code
    grown = kept_memory(many) - kept_memory(few)
    assert grown < BYTES_A_CLIENT * (many - few)
