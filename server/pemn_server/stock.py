"""Flower's own engines: a SuperLink with SuperNodes, and its simulation on Ray.

A Grid of Flower's is made one of PEMN's here, so that one federation runs on all of them.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flwr.app import RecordDict
from flwr.common.serde import message_to_proto
from flwr.superlink.grid import InMemoryGrid

from pemn.errors import ConfigError, MalformedFrame, NetworkError, RemoteError
from pemn.wire.messages import Content, Failure, encode
from pemn_server.flower import RECORD, Fleet, Grid, Message, PemnGrid, content_of, record_of, server_app

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

_LOG = logging.getLogger(__name__)
_HELLO, _SLOT, _NUM_SLOTS = "query.hello", "slot", "num-slots"
_POLL_S = 0.1


class StockGrid(PemnGrid):
    """Reaches clients through a Grid of Flower's; a node says in a first message which slot it is.

    Nobody can count the bytes on its connections: payload is exact, and framed is Flower's message as protobuf, less
    than what Flower sends (docs/engines.md). The first messages are not PEMN's, and in no book. In a simulation nobody
    is here before all are, as in process.

    Args:
        grid: Flower's.
        num_slots: Clients of the run.
        over: Set when the engine below has ended, and no answer will come any more.
    """

    wire_source = "framed"

    def __init__(self, grid: Grid, num_slots: int, over: threading.Event | None = None) -> None:
        super().__init__()
        self._grid, self._num_slots, self._over = grid, num_slots, over
        self._simulated = isinstance(grid, InMemoryGrid)
        self._nodes: dict[int, int] = {}
        self._greeted: set[int] = set()
        self._hellos: dict[str, int] = {}
        self._tasks: dict[str, tuple[int, int]] = {}
        self._next_poll = 0.0

    def slots(self) -> list[int]:
        """Returns the slots whose nodes are online, greeting those that are new.

        Raises:
            NetworkError: If the engine below has ended.
        """
        self._check_engine()
        online = set(self._grid.get_node_ids())
        if new := sorted(online - self._greeted):
            self._greeted |= set(new)
            hellos = [Message(RecordDict(), dst_node_id=node, message_type=_HELLO) for node in new]
            self._hellos |= dict(zip(self._push(hellos), new, strict=True))
        for reply in self._grid.pull_messages(list(self._hellos)) if self._hellos else ():
            node = self._hellos.pop(reply.metadata.reply_to_message_id)
            self._welcome(node, reply, online)
        if self._simulated and len(self._nodes) < self._num_slots:
            return []  # which clients take part must not hang on which of them were quick
        return sorted(slot for slot, node in self._nodes.items() if node in online)

    def wire(self) -> None:
        """Returns None: nobody can say."""

    def finish(self) -> None:
        """Does nothing: Flower tells its nodes itself."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Returns the answers that are there.

        Raises:
            NetworkError: If the engine below has ended.
        """
        self._check_engine()
        if self._tasks and time.monotonic() >= self._next_poll:
            for reply in self._grid.pull_messages(list(self._tasks)):
                self._take(*self._tasks.pop(reply.metadata.reply_to_message_id), reply)
            self._next_poll = time.monotonic() + _POLL_S  # with a SuperLink, every look is an HTTP request
        return super().pull_messages(message_ids)

    def _deliver(self, slot: int, message_id: int, action: str, content: bytes) -> None:
        message = Message(record_of(content), dst_node_id=self._nodes[slot], message_type=action)
        (number,) = self._push([message])
        self._tasks[number] = (slot, message_id)
        self._note(slot, "down", content, message_to_proto(message).ByteSize())

    def _take(self, slot: int, message_id: int, reply: Message) -> None:
        if reply.has_error():
            self._arrived(slot, message_id, _failure(reply))
            return
        content = content_of(reply)
        # What cannot be read is an answer too: the run must not wait for it, and finds out what it is.
        self._arrived(slot, message_id, content)
        try:
            self._note(slot, "up", content, message_to_proto(reply).ByteSize())
        except MalformedFrame as error:
            _LOG.warning("client %d: %s", slot, error)

    def _welcome(self, node: int, reply: Message, online: set[int]) -> None:
        """Takes a node in as the slot that it says it is."""
        told = None if reply.has_error() else reply.content.config_records.get(RECORD)
        if told is None:
            text = reply.error.reason if reply.has_error() else "no PEMN client"
            _LOG.warning("refused node %d: %s", node, text)
            return
        slot, num_slots = told.get(_SLOT), told.get(_NUM_SLOTS)
        if num_slots != self._num_slots or not isinstance(slot, int) or not 0 <= slot < self._num_slots:
            error = RemoteError(
                "client", got=f"{slot!r} of {num_slots!r}", wanted=f"one of {self._num_slots}"
            )
            _LOG.warning("refused node %d: %s", node, error)
        elif self._nodes.get(slot) in online:
            _LOG.warning("refused node %d: there is a client %d already", node, slot)
        else:  # a SuperNode that was started again has another number
            self._nodes[slot] = node
            _LOG.info("client %d is here", slot)

    def _push(self, messages: list[Message]) -> list[str]:
        numbers = list(self._grid.push_messages(messages))
        if len(numbers) != len(messages) or not all(numbers):
            raise NetworkError("Flower has not taken a message", got=numbers, wanted=f"{len(messages)} ids")
        return numbers

    def _check_engine(self) -> None:
        if self._over is not None and self._over.is_set():
            raise NetworkError("Flower's engine has ended before the run")


def _failure(reply: Message) -> bytes:
    """Returns what Flower says in place of a client's answer as the answer of a client that failed."""
    return encode(Content(error=Failure(RemoteError.code, f"Flower: {reply.error.reason}")))


def check_ray() -> None:
    """Makes sure that there is Ray.

    Raises:
        ConfigError: If not.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("engine", got="ray, and no module ray", wanted="pip install 'pemn[simulation]'")


def run_on_ray(run: Callable[[Fleet], None], client_app: ClientApp, *, num_slots: int, num_cpus: int) -> None:
    """Runs a federation on Flower's simulation engine: on the Ray cluster of `RAY_ADDRESS`, or one of its own here.

    Args:
        run: The federation.
        client_app: Of all clients.
        num_slots: How many.
        num_cpus: Of an actor; as many actors are started as Ray has room for.

    Raises:
        PemnError: What the federation raises.
        NetworkError: If the engine fails.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # Actors see the GPUs that this process sees, and train where clients in process would.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    over, failures = threading.Event(), list[BaseException]()

    def guarded(grid: Grid, _context: object) -> None:
        try:
            run(Fleet(StockGrid(grid, num_slots, over)))
        except BaseException as error:
            failures.append(error)  # Flower would raise it too, after whatever its own threads say
            raise

    try:
        run_simulation(
            server_app(guarded),
            client_app,
            num_slots,
            backend_config={
                "init_args": {"log_to_driver": False},
                "client_resources": {"num_cpus": num_cpus, "num_gpus": 0.0},
            },
        )
    except Exception as error:
        if failures:
            raise failures[0] from None
        raise NetworkError(f"Flower's simulation engine failed: {error}") from error
    finally:
        over.set()  # the ServerApp has a thread of its own, which must not wait for answers
    if failures:
        raise failures[0]
