"""`pemn-server simulate`: the same ServerApp and ClientApp in one process.

The only module of the server that knows the client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from rich.console import Console

from pemn.errors import ConfigError, WrongSpec
from pemn.federation.public import PublicState
from pemn.files import prepare_run_dir
from pemn.ledger import Direction, Wire
from pemn.link.frames import framed_bytes
from pemn.link.parts import split
from pemn.link.v1 import link_pb2 as pb
from pemn.training.device import set_threads
from pemn_client.flower import ClientApp, client_app, node_context, run_app
from pemn_client.node import Node
from pemn_client.store import MemoryStore
from pemn_client.trainer import TrainerFactory
from pemn_server.app import run_federation
from pemn_server.flower import Message, PemnGrid, run_server_app
from pemn_server.plan import make_plan
from pemn_server.settings import SimulateSettings

MESSAGE_OVERHEAD_BYTES = 200
CONNECTION_OVERHEAD_BYTES = 5000
"""What TLS and HTTP/2 add on the wire, in this model of it: measured on real runs, rounded up (docs/wire.md)."""


class InProcessGrid(PemnGrid):
    """Calls each client's app in turn, when its answer is pulled.

    Args:
        app: The client app of all nodes.
        num_slots: How many clients.
    """

    wire_source = "modelled"

    def __init__(self, app: ClientApp, num_slots: int) -> None:
        super().__init__()
        self._app = app
        self._contexts = [node_context(slot, num_slots) for slot in range(num_slots)]
        self._wire = dict.fromkeys(range(num_slots), (CONNECTION_OVERHEAD_BYTES // 2,) * 2)
        self._tasks: deque[tuple[int, int, str, bytes]] = deque()

    def slots(self) -> list[int]:
        """Returns all slots: nobody leaves."""
        return list(range(len(self._contexts)))

    def wire(self) -> Wire:
        """Returns the modelled bytes of each slot: (up, down)."""
        return dict(self._wire)

    def finish(self) -> None:
        """Does nothing: nobody is to be told."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Lets one client work, and returns the answers that are there."""
        if self._tasks:
            slot, message_id, action, content = self._tasks.popleft()
            answer = run_app(self._app, self._contexts[slot], action, content)
            self._count(slot, "up", answer, sum(_framed(message_id, answer, "")))
            self._arrived(slot, message_id, answer)
        return super().pull_messages(message_ids)

    def _deliver(self, slot: int, message_id: int, action: str, content: bytes) -> None:
        self._count(slot, "down", content, sum(_framed(message_id, content, action)))
        self._tasks.append((slot, message_id, action, content))

    def _count(self, slot: int, direction: Direction, content: bytes, framed_bytes: int) -> None:
        self._note(slot, direction, content, framed_bytes)
        up, down = self._wire[slot]
        added = framed_bytes + MESSAGE_OVERHEAD_BYTES
        self._wire[slot] = (up + added, down) if direction == "up" else (up, down + added)


def _framed(message_id: int, content: bytes, action: str) -> Iterator[int]:
    """Yields what each part of a message would take on the link."""
    for part in split(message_id, content, action):
        yield framed_bytes(pb.SessionResponse(part=part).SerializeToString())


def simulate(settings: SimulateSettings, folder: Path, console: Console) -> None:
    """Runs a federation in this process and writes its results.

    Raises:
        PemnError: If the options or the data do not allow it.
    """
    set_threads(settings.threads, num_processes=1)
    if settings.partition == "own":
        raise ConfigError(
            "partition", got="own", wanted="iid, dirichlet:A or classes:C: simulated clients share a data set"
        )
    plan = make_plan(settings)
    make_trainer = TrainerFactory(
        settings.dataset, settings.data_dir, model=settings.model, methods=(plan.spec.method,)
    )
    try:
        # Loads the data and deals them out, which all clients share; here one person set both the run and them.
        make_trainer(plan.spec, 0)
    except WrongSpec as error:
        raise ConfigError(f"these options make no run: {error}") from error
    prepare_run_dir(folder)
    app = make_app(make_trainer, settings.num_slots)
    console.print(
        f"run {plan.spec.run_id:016x}, seed {plan.spec.model.seed}: {settings.num_slots} clients in this process",
        highlight=False,
        soft_wrap=True,
    )
    grid = InProcessGrid(app, settings.num_slots)
    run_server_app(grid, lambda fleet: run_federation(settings, folder, plan, fleet, console))


def make_app(make_trainer: TrainerFactory, num_slots: int) -> ClientApp:
    """Returns the client app of a simulation: all its nodes live in this process."""
    states: WeakValueDictionary[tuple[int, int], PublicState] = WeakValueDictionary()
    nodes = [Node(slot, MemoryStore(states), make_trainer) for slot in range(num_slots)]
    return client_app(lambda context: nodes[int(context.node_config["partition-id"])])
