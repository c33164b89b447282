"""A TCP proxy on loopback that counts bytes and can cut or freeze what goes through it."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from dataclasses import dataclass


@dataclass(eq=False)
class Tunnel:
    """One client connection and the connection to the server behind it."""

    client: socket.socket
    server: socket.socket
    up: int = 0
    down: int = 0
    is_open: bool = True


class CountingProxy:
    """Forwards every connection to 127.0.0.1:`target_port`; one thread, closed by `close`."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.tunnels: list[Tunnel] = []
        self.frozen = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def totals(self) -> tuple[int, int]:
        """Bytes forwarded to the server and to the clients, over all connections so far."""
        with self._lock:
            return sum(t.up for t in self.tunnels), sum(t.down for t in self.tunnels)

    def cut(self) -> None:
        """Breaks every connection that is open now."""
        with self._lock:
            for tunnel in self.tunnels:
                self._shut(tunnel)

    def close(self) -> None:
        self._open = False
        self._thread.join()
        self.cut()
        self._selector.close()
        self._listener.close()

    def _run(self) -> None:
        while self._open:
            if self.frozen:
                time.sleep(0.02)
                continue
            for key, _ in self._selector.select(timeout=0.02):
                with self._lock:
                    if key.data is None:
                        self._accept()
                    elif key.data.is_open:
                        self._forward(key.fileobj, key.data)  # type: ignore[arg-type]

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port))
        except OSError:
            client.close()
            return
        tunnel = Tunnel(client, server)
        self.tunnels.append(tunnel)
        for end in (client, server):
            self._selector.register(end, selectors.EVENT_READ, tunnel)

    def _forward(self, source: socket.socket, tunnel: Tunnel) -> None:
        upwards = source is tunnel.client
        sink = tunnel.server if upwards else tunnel.client
        try:
            data = source.recv(1 << 18)
            sink.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._shut(tunnel)
        elif upwards:
            tunnel.up += len(data)
        else:
            tunnel.down += len(data)

    def _shut(self, tunnel: Tunnel) -> None:
        if tunnel.is_open:
            tunnel.is_open = False
            for end in (tunnel.client, tunnel.server):
                self._selector.unregister(end)
                end.close()
