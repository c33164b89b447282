"""A TCP proxy on loopback that does to what goes through it what bad networks do."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Literal

Fault = Literal["delay", "drop", "truncate", "corrupt"]


class FaultyProxy:
    """Forwards connections to 127.0.0.1:`target`, badly.

    Args:
        target: Port.
        fault: `delay` holds every piece back for 50 ms; `drop` ends a connection within half a second; `truncate` ends
            it within a piece; `corrupt` changes a byte of one piece in five.
        seed: Of what is drawn.
    """

    def __init__(self, target: int, fault: Fault, seed: int = 0) -> None:
        self._target, self._fault, self._chance = target, fault, random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.num_faults = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._join, args=(client, server), daemon=True).start()

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        ends_at = time.monotonic() + self._chance.uniform(0.05, 0.5)
        with client, server:
            back = threading.Thread(target=self._forward, args=(server, client, ends_at), daemon=True)
            back.start()
            self._forward(client, server, ends_at)
            back.join()

    def _forward(self, source: socket.socket, sink: socket.socket, ends_at: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                match self._fault:
                    case "delay":
                        self.num_faults += 1
                        time.sleep(0.05)
                    case "drop" if time.monotonic() > ends_at:
                        self.num_faults += 1
                        break
                    case "truncate" if self._chance.random() < 0.1:
                        self.num_faults += 1
                        sink.sendall(data[: len(data) // 2])
                        break
                    case "corrupt" if self._chance.random() < 0.2:
                        self.num_faults += 1
                        at = self._chance.randrange(len(data))
                        data = data[:at] + bytes([data[at] ^ 1 << self._chance.randrange(8)]) + data[at + 1 :]
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def slow_strangers(port: int, count: int) -> Iterator[None]:
    """Connections that say a byte a second of what a client would say first."""
    text = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(1000)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    over = threading.Event()

    def speak() -> None:
        for at in range(len(text)):
            for connection in connections:
                with contextlib.suppress(OSError):  # the server has had enough of this one
                    connection.send(text[at : at + 1])
            if over.wait(1):
                return

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for connection in connections:
            connection.close()
