"""The Grid over PEMN's own gRPC link: one long-lived stream a client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import grpc

from pemn.errors import PemnError
from pemn.ledger import Wire
from pemn.link.enrolment import Enrolment
from pemn.link.parts import Message
from pemn.link.server import LinkServer
from pemn.wire.limits import max_answer_bytes, max_task_bytes
from pemn.wire.messages import Content
from pemn_server.flower import PemnGrid

_FAREWELL_S = 10.0
_LOG = logging.getLogger(__name__)


class LinkGrid(PemnGrid):
    """Reaches clients through a `LinkServer`.

    A client that comes back gets the tasks again that it has not answered.

    Args:
        listen: HOST:PORT; port 0 picks a free one.
        credentials: TLS; None listens in the clear.
        num_slots: Clients of the run.
        num_bits: Of the network's mask.
        enrolment: Who may take part; None: whoever comes.
        on_refused: Told, in the link's thread, why a client was sent away.
    """

    keeps_tasks = True

    def __init__(
        self,
        listen: str,
        *,
        credentials: grpc.ServerCredentials | None,
        num_slots: int,
        num_bits: int,
        enrolment: Enrolment | None = None,
        on_refused: Callable[[PemnError], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._on_refused = on_refused
        self._num_bits, self._enrolment = num_bits, enrolment
        self._sending: dict[int, tuple[int, bytes]] = {}
        self._link = LinkServer(
            listen,
            credentials=credentials,
            num_slots=num_slots,
            max_task_bytes=max_task_bytes(num_bits),
            max_answer_bytes=max_answer_bytes(num_bits),
            on_message=self._take,
            on_join=self._join,
            on_leave=self._leave,
            on_sent=self._sent,
            on_refused=self._refused,
            enrolment=enrolment,
        )

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return self._link.port

    def start(self) -> None:
        """Begins to listen.

        Raises:
            NetworkError: If the address is in use or not ours.
        """
        self._link.start()

    def check(self, slot: int, content: Content) -> None:
        """See `PemnGrid`: where clients are enrolled, a vote needs its client's signature."""
        if self._enrolment is not None and content.update is not None:
            self._enrolment.check_update(slot, content.update, self._num_bits)

    def expel(self, slot: int, error: PemnError) -> None:
        """Ends a slot's session, if it has one, with a refusal."""
        self._link.expel(slot, error)

    def finish(self) -> None:
        """See `PemnGrid`."""
        self._link.finish(_FAREWELL_S)

    def stop(self) -> None:
        """Stops listening."""
        self._link.stop()

    @property
    def wire_source(self) -> str:
        """The kernel counts the bytes of each socket, on Linux."""
        return "framed" if self.wire() is None else "socket"

    def forget(self, message_ids: Iterable[str]) -> None:
        """See `PemnGrid`; a client that has its task goes on with it all the same."""
        with self._lock:
            for number in map(int, message_ids):
                if task := self._pending.pop(number, None):
                    self._left[number] = task.metadata.dst_node_id - 1
                self._done.pop(number, None)

    def slots(self) -> list[int]:
        """Returns the slots that have a session."""
        return self._link.connected()

    def wire(self) -> Wire | None:
        """Returns the kernel's counts of each slot's connections: (up, down)."""
        return self._link.wire_bytes()

    def _deliver(self, slot: int, message_id: int, action: str, content: bytes) -> None:
        self._sending[message_id] = (slot, content)
        self._link.send(slot, message_id, action, content)

    # What follows is called in the link's thread.

    def _take(self, slot: int, message: Message) -> None:
        # What cannot be read is an answer too: the run must not wait for it, and the error ends the session.
        self._arrived(slot, message.message_id, message.content)
        self._note(slot, "up", message.content, message.framed_bytes)

    def _sent(self, slot: int, message_id: int, framed_bytes: int) -> None:
        # The answer may have come first, or nobody waits for it any more: what was sent counts all the same.
        if sending := self._sending.pop(message_id, None):
            self._note(slot, "down", sending[1], framed_bytes)

    def _join(self, slot: int) -> None:
        _LOG.info("client %d is here", slot)
        for message_id, action, content in self._open_tasks(slot):
            self._deliver(slot, message_id, action, content)

    def _leave(self, slot: int) -> None:
        _LOG.info("client %d has left", slot)
        with self._lock:
            self._left = {number: owner for number, owner in self._left.items() if owner != slot}
        for message_id, (receiver, _) in list(self._sending.items()):
            if receiver == slot:  # void; what is still wanted is sent again when the client is back
                self._sending.pop(message_id, None)

    def _refused(self, peer: str, error: PemnError) -> None:
        _LOG.warning("refused %s: %s", peer, error)
        self._on_refused(error)
