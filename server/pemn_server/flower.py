"""Everything of the server that touches Flower: the ServerApp, the Grid below it, and the fleet above it.

Flower changes its insides every few weeks; what must follow is in this file alone.
"""

from __future__ import annotations

import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

# Flower reads these when it is imported: no telemetry, no question for updates, nothing installed at run time.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")

from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.serverapp import Grid, ServerApp

from pemn.errors import LocalError, RemoteError
from pemn.ledger import Direction, Entry, Ledger, Wire
from pemn.wire.messages import Content, decode, encode, num_bytes_by_kind

__all__ = ["Answer", "Context", "Fleet", "Grid", "Message", "PemnGrid", "run_server_app", "server_app"]

RECORD, _KEY = "pemn", "content"
_POLL_S = (0.001, 0.05)
_DAY_S = 86_400.0


class PemnGrid(Grid):
    """A Flower Grid that takes content to slots and accounts for it; node `slot + 1` is a client.

    Subclasses say how content travels: `_deliver` sends a task, and `_arrived` is called, from any thread, when its
    answer is there.
    """

    hand_over = False
    """Whether contents are handed over as they are."""

    keeps_tasks = False
    """Whether a client that can be reached does all its tasks, in their order, whoever waits for the answers."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._lock = threading.Lock()
        self._next_id = 1
        self._pending: dict[int, Message] = {}
        self._done: dict[int, Message] = {}
        self._left: dict[int, int] = {}

    @property
    def ledger(self) -> Ledger:
        """What the messages cost, up to the last round that was closed."""
        return self._ledger

    @property
    @abstractmethod
    def wire_source(self) -> str:
        """How the wire bytes are known: `socket`, `modelled`, `estimated` or `framed` (not at all)."""

    @abstractmethod
    def slots(self) -> list[int]:
        """Returns the slots of the clients that can be reached now."""

    def check(self, slot: int, content: Content) -> None:
        """Refuses an answer that is not its client's own.

        Raises:
            RemoteError: If it is not, where that can be told.
        """

    def is_quiet(self) -> bool:
        """Returns whether nobody will answer any more, as far as is known here."""
        return False

    def busy(self) -> set[int]:
        """Returns the slots that are at work at a task for whose answer nobody waits any more."""
        with self._lock:
            return set(self._left.values())

    @abstractmethod
    def wire(self) -> Wire | None:
        """Returns the bytes so far on each slot's connections; None where nobody can say."""

    @abstractmethod
    def finish(self) -> None:
        """Tells the clients that the run is over and waits, but not for ever, until they have left."""

    @abstractmethod
    def _deliver(self, slot: int, message_id: int, action: str, content: bytes) -> None:
        """Sends a task; must not wait for its answer."""

    def pack(self, content: Content) -> bytes:
        """Returns a task as the bytes of a Flower message."""
        return encode(content)

    def unpack(self, data: bytes) -> Content:
        """Returns the answer of a Flower message's bytes.

        Raises:
            RemoteError: If it is none.
        """
        return decode(data)

    def _arrived(self, slot: int, message_id: int, content: bytes) -> None:
        """Takes an answer; one that nobody waits for, or not from this slot, is dropped."""
        with self._lock:
            if self._left.get(message_id) == slot:
                del self._left[message_id]
            task = self._pending.get(message_id)
            if task is not None and task.metadata.dst_node_id == slot + 1:
                del self._pending[message_id]
                self._done[message_id] = Message(record_of(content), reply_to=task)

    def _note(self, slot: int, direction: Direction, content: bytes, framed_bytes: int) -> None:
        """Enters a message into the ledger.

        Raises:
            MalformedFrame: If the content is none.
        """
        self._note_sizes(slot, direction, len(content), num_bytes_by_kind(content), framed_bytes)

    def _note_sizes(
        self, slot: int, direction: Direction, payload: int, by_kind: Mapping[str, int], framed_bytes: int
    ) -> None:
        """Enters a message into the ledger of which only the sizes are known; see `pemn.ledger.Ledger.note`."""
        with self._lock:
            self._ledger.note(slot, direction, payload, by_kind, framed_bytes)

    def close_round(self, round_: int) -> list[Entry]:
        """Ends a round in the ledger and returns its entries."""
        wire = self.wire()
        with self._lock:
            return self._ledger.close_round(round_, wire)

    def _open_tasks(self, slot: int) -> list[tuple[int, str, bytes]]:
        """Returns id, action and content of the tasks that a client has not answered."""
        with self._lock:
            return [
                (number, task.metadata.message_type, content_of(task))
                for number, task in self._pending.items()
                if task.metadata.dst_node_id == slot + 1
            ]

    # What Flower's Grid asks for.

    def set_run(self, run: object) -> None:
        """Does nothing: runs are not Flower's here."""

    @property
    def run(self) -> object:  # type: ignore[override]
        """There is no run of Flower's.

        Raises:
            LocalError: Always.
        """
        raise LocalError("no Flower run under this grid")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Returns a message to a node."""
        with self._lock:
            number = self._next_id
            self._next_id += 1
        metadata = Metadata(
            run_id=0,
            message_id=str(number),
            src_node_id=0,
            dst_node_id=dst_node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=time.time(),
            ttl=_DAY_S if ttl is None else ttl,
            message_type=message_type,
        )
        return make_message(metadata, content)

    def get_node_ids(self) -> list[int]:
        """Returns the nodes that can be reached now."""
        return [slot + 1 for slot in self.slots()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages and returns their ids."""
        ids = []
        for message in messages:
            number = int(message.metadata.message_id)
            with self._lock:
                self._pending[number] = message
            slot = message.metadata.dst_node_id - 1
            self._deliver(slot, number, message.metadata.message_type, content_of(message))
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Returns the answers that are there."""
        with self._lock:
            ready = [int(i) for i in message_ids if int(i) in self._done]
            return [self._done.pop(number) for number in ready]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Sends messages and waits for the answers."""
        return list(_exchange(self, messages, timeout))

    def forget(self, message_ids: Iterable[str]) -> None:
        """Stops waiting for answers; a late one is dropped."""
        with self._lock:
            for i in message_ids:
                self._pending.pop(int(i), None)
                self._done.pop(int(i), None)


@dataclass(frozen=True)
class Answer:
    """What became of a task: its content, or the error that took its place."""

    slot: int
    content: Content | None
    error: RemoteError | None = None


class Fleet:
    """The clients of a run, by slot, on any of PEMN's grids.

    Args:
        grid: How they are reached.
    """

    def __init__(self, grid: PemnGrid) -> None:
        self._grid = grid

    @property
    def ledger(self) -> Ledger:
        """What the messages cost, up to the last round that was closed."""
        return self._grid.ledger

    @property
    def wire_source(self) -> str:
        """How the wire bytes are known; see `PemnGrid`."""
        return self._grid.wire_source

    @property
    def hand_over(self) -> bool:
        """Whether the clients are in this process, and payloads need not be coded."""
        return self._grid.hand_over

    def close_round(self, round_: int) -> list[Entry]:
        """Ends a round in the ledger and returns its entries."""
        return self._grid.close_round(round_)

    @property
    def keeps_tasks(self) -> bool:
        """Whether a client that can be reached does all its tasks; see `PemnGrid`."""
        return self._grid.keeps_tasks

    def finish(self) -> None:
        """Tells the clients that the run is over and waits, but not for ever, until they have left."""
        self._grid.finish()

    def busy(self) -> set[int]:
        """Returns the slots that are at work at a task for whose answer nobody waits; see `PemnGrid`."""
        return self._grid.busy()

    def slots(self) -> list[int]:
        """Returns the slots of the clients that can be reached now, ascending."""
        return sorted(node - 1 for node in self._grid.get_node_ids())

    def ask(
        self, action: str, tasks: Mapping[int, Content], round_: int, timeout_s: float | None
    ) -> Generator[Answer]:
        """Gives each client its task and yields the answers as they come; whoever stops listening gets no more.

        Args:
            action: `train` or `query`.
            tasks: Content by slot, in the order in which they are asked.
            round_: For Flower's books.
            timeout_s: How long to wait for the last one; later ones are dropped.
        """
        messages = [
            self._grid.create_message(record_of(self._grid.pack(content)), action, slot + 1, str(round_))
            for slot, content in tasks.items()
        ]
        with closing(_exchange(self._grid, messages, timeout_s)) as answers:
            for message in answers:
                slot = message.metadata.src_node_id - 1
                try:
                    content = self._grid.unpack(content_of(message))
                    self._grid.check(slot, content)
                except RemoteError as error:
                    yield Answer(slot, None, error)
                else:
                    yield Answer(slot, content)


def run_server_app(grid: PemnGrid, run: Callable[[Fleet], None]) -> None:
    """Runs a federation as a Flower ServerApp.

    Args:
        grid: How the clients are reached.
        run: The federation.
    """
    app = server_app(lambda _grid, _context: run(Fleet(grid)))
    app(grid, Context(run_id=0, node_id=0, node_config={}, state=RecordDict(), run_config={}))


def server_app(run: Callable[[Grid, Context], None]) -> ServerApp:
    """Returns the ServerApp.

    Args:
        run: The federation, on the Grid and with the run config that an engine gives it.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid, context)

    return app


def _exchange(grid: PemnGrid, messages: Iterable[Message], timeout_s: float | None) -> Generator[Message]:
    waiting = set(grid.push_messages(messages))
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause = _POLL_S[0]
    try:
        while waiting and (deadline is None or time.monotonic() < deadline):
            answers = grid.pull_messages(waiting)
            for answer in answers:
                waiting.discard(answer.metadata.reply_to_message_id)
                yield answer
            pause = _POLL_S[0] if answers else min(2 * pause, _POLL_S[1])
            if waiting and not answers:
                if grid.is_quiet():
                    break
                time.sleep(pause)
    finally:
        grid.forget(waiting)


def record_of(content: bytes) -> RecordDict:
    """Returns a message's content for Flower."""
    return RecordDict({RECORD: ConfigRecord({_KEY: content})})


def content_of(message: Message) -> bytes:
    """Returns the content of a message of Flower's; nothing where there is none of ours."""
    content = message.content.config_records.get(RECORD, ConfigRecord()).get(_KEY)
    return content if isinstance(content, bytes) else b""
