"""A server that writes down what happens to it, and clients in threads, for the tests of the link."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from pemn.errors import PemnError
from pemn.link.client import Handler, LinkClient, LinkState
from pemn.link.enrolment import Enrolment
from pemn.link.keys import ClientKey
from pemn.link.parts import Message
from pemn.link.server import LinkServer

MAX_CONTENT_BYTES = 8 << 20
DEADLINE_S = 20.0


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
        time.sleep(0.005)


class Server:
    """A LinkServer whose callbacks fill lists."""

    def __init__(
        self,
        num_slots: int = 2,
        listen: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
        enrolment: Enrolment | None = None,
    ) -> None:
        self.answers: list[tuple[int, Message]] = []
        self.sent: list[tuple[int, int, int]] = []
        self.events: list[tuple[str, int]] = []
        self.refused: list[tuple[str, PemnError]] = []
        self.link = LinkServer(
            listen,
            credentials=credentials,
            num_slots=num_slots,
            max_task_bytes=MAX_CONTENT_BYTES,
            max_answer_bytes=MAX_CONTENT_BYTES,
            on_message=lambda slot, message: self.answers.append((slot, message)),
            on_join=lambda slot: self.events.append(("join", slot)),
            on_leave=lambda slot: self.events.append(("leave", slot)),
            on_sent=lambda *sent: self.sent.append(sent),
            on_refused=lambda *refused: self.refused.append(refused),
            enrolment=enrolment,
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.link.port}"

    def wait_for(self, *slots: int) -> None:
        wait_until(lambda: self.link.connected() == list(slots), f"slots {slots}")

    def ask(self, slot: int, message_id: int, content: bytes) -> Message:
        """Sends a task and waits for its answer."""
        before = len(self.answers)
        self.link.send(slot, message_id, "train", content)
        wait_until(lambda: len(self.answers) > before, f"the answer to {message_id}")
        got_slot, message = self.answers[-1]
        assert (got_slot, message.message_id) == (slot, message_id)
        return message


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Server]:
    server = Server(**options)
    server.link.start()
    try:
        yield server
    finally:
        server.link.stop()


class Client:
    """A LinkClient that runs in a thread of its own; `wait` gives what it ended with."""

    def __init__(
        self,
        server: str,
        *,
        handle: Handler = lambda _, content: content,
        ca: Path | None = None,
        slot: int = 0,
        num_slots: int = 2,
        client: ClientKey | bytes | None = None,
        give_up_after_s: float | None = 60,
    ) -> None:
        self.states: list[tuple[LinkState, str]] = []
        self.error: Exception | None = None
        link = LinkClient(
            server,
            ca=ca,
            client=client or secrets.token_bytes(16),
            slot=slot,
            num_slots=num_slots,
        )

        def run() -> None:
            try:
                link.run(handle, on_state=lambda *s: self.states.append(s), give_up_after_s=give_up_after_s)
            except Exception as error:
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float = DEADLINE_S) -> Exception | None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"the client still runs after {timeout_s} s: {self.states}"
        return self.error
