from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from pemn.link.meter import Peer, TcpMeter, Traffic, is_supported
from tests.link_rig import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the bytes of a connection")


@contextlib.contextmanager
def connected(listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket, str]]:
    with socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            yield client, server, f"ipv4:127.0.0.1:{client.getsockname()[1]}"


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:127.0.0.1:5000", Peer("127.0.0.1", 5000)),
        ("ipv6:%5B::1%5D:5000", Peer("::1", 5000)),
        ("ipv6:[::1]:5000", Peer("::1", 5000)),
        ("ipv6:%5Bfe80::1%252%5D:5000", Peer("fe80::1", 5000)),
    ],
)
def test_peers_are_read_however_grpc_spells_them(text: str, peer: Peer) -> None:
    assert Peer.parse(text) == peer


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_bytes_are_counted_exactly_and_stay_counted_after_the_end(host: str) -> None:
    assert is_supported()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        meter = TcpMeter(listener.getsockname()[1])
        for number in range(1, 3):
            with socket.create_connection((host, listener.getsockname()[1])) as client:
                server, _ = listener.accept()
                with server:
                    meter.assign(f"x:[{host}]:{client.getsockname()[1]}", 7)
                    client.sendall(bytes(1000))
                    server.sendall(bytes(200))
                    client.recv(200, socket.MSG_WAITALL)
                    server.recv(1000, socket.MSG_WAITALL)
                    # Only what is acknowledged counts as sent.
                    least = 200 * number
                    wait_until(lambda: meter.totals()[7].sent >= least, "the acknowledgement")  # noqa: B023
            assert meter.totals()[7].received == 1000 * number
            assert 200 * number <= meter.totals()[7].sent <= 202 * number  # SYN and FIN count as one each


def test_connections_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        meter = TcpMeter(listener.getsockname()[1])
        with (
            connected(listener) as one,
            connected(listener) as two,
            connected(listener) as three,
            connected(other),
        ):
            for number, (client, server, peer) in enumerate((one, two)):
                meter.assign(peer, number)
                client.sendall(bytes(100 * (number + 1)))
                server.recv(1000)
            meter.assign(two[2], 0)  # its first owner keeps it
            three[0].sendall(bytes(50))
            three[1].recv(50)
            assert {owner: t.received for owner, t in meter.totals().items()} == {0: 100, 1: 200, None: 50}


def test_polling_leaves_every_connection_open_under_load() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meter = TcpMeter(listener.getsockname()[1])
        with connected(listener) as (client, server, peer):
            meter.assign(peer, 0)
            total = 4 << 20
            sender = threading.Thread(target=lambda: client.sendall(bytes(total)))
            sender.start()
            got = 0
            while got < total:
                got += len(server.recv(1 << 16))
                meter.poll()
            sender.join()
            assert meter.totals()[0] == Traffic(total, meter.totals()[0].sent)


def test_without_descriptors_the_last_figures_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who opens connections until no descriptor is left must not stop the books."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server, _ = listener.accept()
            with server:
                meter = TcpMeter(port)
                client.sendall(bytes(1000))
                server.recv(1000, socket.MSG_WAITALL)
                before = meter.totals()
                assert sum(traffic.received for traffic in before.values()) == 1000
                for name in ("listdir", "dup"):
                    with monkeypatch.context() as patch:
                        patch.setattr(os, name, _no_descriptors)
                        assert meter.totals() == before
                client.sendall(bytes(500))
                server.recv(500, socket.MSG_WAITALL)
                assert sum(traffic.received for traffic in meter.totals().values()) == 1500


def _no_descriptors(*_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")
