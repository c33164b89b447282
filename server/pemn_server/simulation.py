"""`pemn-server simulate`: the same ServerApp and ClientApp in one process, or on Flower's engine on Ray.

The only module of the server that knows the client.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from pemn.errors import ConfigError, FileError, WrongSpec
from pemn.federation.public import PublicState
from pemn.files import LEDGER_NAME, prepare_run_dir
from pemn.ledger import Direction, Entry, Wire
from pemn.link.parts import framed_size
from pemn.methods import Memory, Server, ServerState, Trainer
from pemn.training.device import set_threads
from pemn.wire.messages import Content
from pemn.wire.sizes import content_sizes
from pemn.wire.spec import Spec
from pemn_client.cohorts import Cohorts
from pemn_client.flower import client_app, node_context, run_app
from pemn_client.node import TRAIN, Node
from pemn_client.stock import SharedNodes, no_clock
from pemn_client.store import MemoryStore
from pemn_client.trainer import TrainerFactory
from pemn_client.workers import Workers, workers
from pemn_server import checkpoint
from pemn_server.app import run_federation
from pemn_server.flower import Message, PemnGrid, run_server_app
from pemn_server.log import Log
from pemn_server.outcome import Outcome
from pemn_server.plan import Plan, make_plan
from pemn_server.record import LedgerRecord, read_entries
from pemn_server.settings import SimulateSettings

_CLIENTS_NAME = "clients"
_RAY_WAIT_S = 120.0
MESSAGE_OVERHEAD_BYTES = 200
CONNECTION_OVERHEAD_BYTES = 5000
"""What TLS and HTTP/2 add on the wire, in this model of it: measured on real runs, rounded up (docs/wire.md)."""


class Desk:
    """Where the two ends of a simulation put contents for each other: their messages hold a number alone."""

    def __init__(self) -> None:
        self._contents: dict[bytes, Content] = {}
        self._count = 0

    def put(self, content: Content) -> bytes:
        """Takes a content and returns its number."""
        self._count += 1
        number = self._count.to_bytes(8, "little")
        self._contents[number] = content
        return number

    def look(self, number: bytes) -> Content:
        """Returns a content that is here."""
        return self._contents[number]

    def take(self, number: bytes) -> Content:
        """Returns a content, which is no longer here."""
        return self._contents.pop(number)


class Clients:
    """All clients of a simulation; those with the same public state share one copy of it.

    Args:
        make_trainer: Makes their trainers.
        num_slots: How many.
    """

    def __init__(self, make_trainer: Callable[[Spec, int], Trainer], num_slots: int) -> None:
        states: WeakValueDictionary[tuple[int, int], PublicState] = WeakValueDictionary()
        self._stores = [MemoryStore(states) for _ in range(num_slots)]
        nodes = [Node(slot, store, make_trainer, hand_over=True) for slot, store in enumerate(self._stores)]
        self.desk = Desk()
        self.app = client_app(
            lambda context: nodes[int(context.node_config["partition-id"])], self.desk.put, self.desk.take
        )

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self._stores)

    def memories(self, spec: Spec) -> dict[int, Memory]:
        """Returns what clients keep of their own, by slot."""
        found = ((slot, store.load_memory(spec)) for slot, store in enumerate(self._stores))
        return {slot: memory for slot, memory in found if memory is not None}

    def go_on(self, spec: Spec, state: ServerState, memories: Mapping[int, Memory]) -> None:
        """Gives the clients what they had in an earlier process."""
        for slot, round_ in state.known.items():
            self._stores[slot].save_spec(spec)
            if (had := state.at(round_)) is not None:  # else the server sends it a keyframe
                self._stores[slot].save_state(spec, had)
        for slot, memory in memories.items():
            self._stores[slot].save_memory(spec, memory)


class InProcessGrid(PemnGrid):
    """Calls each client's app in turn, when its answer is pulled.

    Args:
        clients: All of them.
        expect: Told, in order, which slots are about to train.
        estimate: Whether payloads are estimated for the books; if not, each is coded to be counted.
        drop_out: Chance that a client that is to train is lost: its task comes, and nothing more is heard of it.
        seed: By which they are drawn.
    """

    hand_over = True

    def __init__(
        self,
        clients: Clients,
        expect: Callable[[list[int]], None] = lambda _: None,
        *,
        estimate: bool = False,
        drop_out: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._drop_out, self._seed = drop_out, seed
        self._asked: dict[tuple[str, int], int] = {}
        self._expect = expect
        self._app, self._desk, self._estimate = clients.app, clients.desk, estimate
        self._contexts = [node_context(slot, len(clients)) for slot in range(len(clients))]
        self._wire = dict.fromkeys(range(len(clients)), (CONNECTION_OVERHEAD_BYTES // 2,) * 2)
        self._tasks: deque[tuple[int, int, str, bytes]] = deque()

    @property
    def wire_source(self) -> str:
        """See `PemnGrid`."""
        return "estimated" if self._estimate else "modelled"

    def go_on(self, entries: Iterable[Entry]) -> None:
        """Takes up the books of an earlier process, in which the connections were made."""
        self.ledger.go_on(entries, self._wire)

    def slots(self) -> list[int]:
        """Returns all slots: nobody leaves."""
        return list(range(len(self._contexts)))

    def wire(self) -> Wire:
        """Returns the modelled bytes of each slot: (up, down)."""
        return dict(self._wire)

    def pack(self, content: Content) -> bytes:
        """See `PemnGrid`; its number on the desk."""
        return self._desk.put(content)

    def unpack(self, data: bytes) -> Content:
        """See `PemnGrid`."""
        return self._desk.take(data)

    def finish(self) -> None:
        """Does nothing: nobody is to be told."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages and returns their ids."""
        ids = super().push_messages(messages)
        self._expect([slot for slot, _, action, _ in self._tasks if action == TRAIN])
        return ids

    def is_quiet(self) -> bool:
        """See `PemnGrid`; those that are lost do not come back in this round."""
        return not self._tasks

    def forget(self, message_ids: Iterable[str]) -> None:
        """Stops waiting for answers; who has not begun with its task does not."""
        unwanted = {int(i) for i in message_ids}
        for task in [task for task in self._tasks if task[1] in unwanted]:
            self._tasks.remove(task)
            self._desk.take(task[3])
        super().forget(message_ids)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Lets one client work, and returns the answers that are there."""
        while self._tasks:
            slot, message_id, action, content = self._tasks.popleft()
            if action == TRAIN and self._is_lost(slot, self._pending[message_id].metadata.group_id):
                self._desk.take(content)
                continue
            answer = run_app(self._app, self._contexts[slot], action, content)
            self._count(slot, "up", message_id, answer)
            self._arrived(slot, message_id, answer)
            break
        return super().pull_messages(message_ids)

    def _is_lost(self, slot: int, round_: str) -> bool:
        """Draws whether a client is lost; asked again in the same round, it is drawn again."""
        if not self._drop_out:
            return False
        self._asked = {key: count for key, count in self._asked.items() if key[0] == round_}
        self._asked[round_, slot] = times = self._asked.get((round_, slot), 0) + 1
        draw = np.random.default_rng([self._seed, int(round_), slot, times]).random()
        return bool(draw < self._drop_out)

    def _deliver(self, slot: int, message_id: int, action: str, content: bytes) -> None:
        self._count(slot, "down", message_id, content, action)
        self._tasks.append((slot, message_id, action, content))

    def _count(
        self, slot: int, direction: Direction, message_id: int, number: bytes, action: str = ""
    ) -> None:
        payload, by_kind = content_sizes(self._desk.look(number), estimate=self._estimate)
        framed = framed_size(message_id, payload, action)
        self._note_sizes(slot, direction, payload, by_kind, framed)
        up, down = self._wire[slot]
        added = framed + MESSAGE_OVERHEAD_BYTES
        self._wire[slot] = (up + added, down) if direction == "up" else (up, down + added)


def simulate(settings: SimulateSettings, folder: Path, log: Log) -> None:
    """Runs a federation and writes its results.

    Raises:
        PemnError: If the options, the data or what is installed do not allow it.
    """
    if settings.engine == "ray":
        from pemn_server.stock import check_ray  # it brings in half of Flower

        check_ray()
    set_threads(settings.threads, num_processes=settings.workers)
    if settings.partition == "own":
        raise ConfigError(
            "partition", got="own", wanted="iid, dirichlet:A or classes:C: simulated clients share a data set"
        )
    plan = make_plan(settings)
    kept = checkpoint.load(folder / checkpoint.CHECKPOINT_NAME, settings) if settings.resume else None
    if kept is not None:
        plan = replace(plan, spec=kept.spec)
    make_trainer = TrainerFactory(
        settings.dataset,
        settings.data_dir,
        model=settings.model,
        methods=(plan.spec.method,),
        clock=no_clock,
        half=settings.half,
    )
    with _trainers(settings, make_trainer) as trainers:
        try:
            # Loads the data and deals them out, which all clients share; here one person set both the run and them.
            trainers(plan.spec, 0)
        except WrongSpec as error:
            raise ConfigError(f"these options make no run: {error}") from error
        if settings.engine == "ray":
            prepare_run_dir(folder)
            _tell(log, plan, f"{settings.num_slots} clients on Ray")
            _simulate_on_ray(settings, folder, plan, make_trainer, log)
        else:
            _simulate_here(settings, folder, plan, kept, trainers, log)


@contextmanager
def _trainers(settings: SimulateSettings, make_trainer: TrainerFactory) -> Iterator[Cohorts | Workers]:
    """Gives the clients of a simulation their trainers."""
    if settings.workers == 1:
        yield Cohorts(make_trainer, settings.cohort_batch)
    else:
        with workers(make_trainer, settings.workers, settings.threads) as trainers:
            yield trainers


def _simulate_here(
    settings: SimulateSettings,
    folder: Path,
    plan: Plan,
    kept: checkpoint.Checkpoint | None,
    trainers: Cohorts | Workers,
    log: Log,
) -> None:
    clients = Clients(trainers, settings.num_slots)
    grid = InProcessGrid(
        clients,
        trainers.expect,
        estimate=settings.account == "estimate",
        drop_out=settings.drop_out,
        seed=plan.spec.model.seed,
    )
    told = f" and {settings.workers} workers" if settings.workers > 1 else ""
    if kept is None:
        prepare_run_dir(folder)
    else:
        clients.go_on(plan.spec, kept.outcome.state, kept.memories)
        grid.go_on(_entries(folder, kept.num_entries))
        told += f", going on after round {kept.outcome.state.public.round}"
    _tell(log, plan, f"{settings.num_slots} clients in this process{told}")
    with _SimulationRecord(folder, settings, plan.spec, grid, clients, kept) as record:
        run_server_app(grid, lambda fleet: run_federation(settings, folder, plan, fleet, log, record))


class _SimulationRecord(LedgerRecord):
    """A simulation that goes on after its last whole round, its clients included."""

    def __init__(
        self,
        folder: Path,
        settings: SimulateSettings,
        spec: Spec,
        grid: InProcessGrid,
        clients: Clients,
        kept: checkpoint.Checkpoint | None,
    ) -> None:
        self._folder, self._settings, self._spec = folder, settings, spec
        self._grid, self._clients, self._server = grid, clients, Server.of(spec)
        if kept is None:
            super().__init__(folder)
        else:
            super().__init__(folder, kept.outcome, kept.num_entries)

    def keep_outcome(self, outcome: Outcome) -> None:
        memories, num_entries = self._clients.memories(self._spec), self._grid.ledger.num_entries
        reached = checkpoint.Checkpoint(self._spec, outcome, num_entries, memories)
        checkpoint.save(self._folder / checkpoint.CHECKPOINT_NAME, self._settings, self._server, reached)


def _simulate_on_ray(
    settings: SimulateSettings, folder: Path, plan: Plan, make_trainer: TrainerFactory, log: Log
) -> None:
    from pemn_server.stock import run_on_ray

    store = folder.absolute() / _CLIENTS_NAME  # actors need not have the same working directory
    if make_trainer.data_dir is not None:
        make_trainer = replace(make_trainer, data_dir=make_trainer.data_dir.absolute())
    threads = settings.threads or 1
    try:
        with LedgerRecord(folder) as record:
            run_on_ray(
                lambda fleet: run_federation(
                    settings, folder, plan, fleet, log, record, wait_timeout_s=_RAY_WAIT_S
                ),
                client_app(SharedNodes(store, make_trainer, threads), explain=True),
                num_slots=settings.num_slots,
                num_cpus=threads,
            )
    finally:
        shutil.rmtree(store, ignore_errors=True)  # nothing goes on from it


def _tell(log: Log, plan: Plan, text: str) -> None:
    told = f"run {plan.spec.run_id:016x}, seed {plan.spec.model.seed}: {text}"
    log.say(told)


def _entries(folder: Path, count: int) -> list[Entry]:
    """Returns the first lines of a run's ledger.

    Raises:
        FileError: If they are not there, or no lines of a ledger.
    """
    entries = read_entries(folder)[:count]
    if len(entries) < count:
        raise FileError("ledger has lost lines", got=len(entries), wanted=count, where=folder / LEDGER_NAME)
    return entries
