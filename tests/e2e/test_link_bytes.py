from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pemn.link.provision import provision
from pemn.link.tls import server_credentials
from tests.link_rig import Client, serving, wait_until
from tests.proxy import CountingProxy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the bytes of a connection")

SIZES = (100, 5_000, 524_288, 524_289, 2_000_000)


@pytest.mark.parametrize("tls", [True, False])
def test_wire_bytes_agree_with_a_proxy_on_the_socket(tmp_path: Path, tls: bool) -> None:
    provision(tmp_path / "pki", [], 0)
    credentials = server_credentials(tmp_path / "pki/server.pem", tmp_path / "pki/server.key")
    ca = tmp_path / "pki/ca.pem"
    with serving(credentials=credentials if tls else None) as server:
        proxy = CountingProxy(server.link.port)
        try:
            answers = {size: os.urandom(size // 2) for size in SIZES}
            client = Client(
                f"127.0.0.1:{proxy.port}",
                ca=ca if tls else None,
                handle=lambda _, content: answers[len(content)],
            )
            server.wait_for(0)
            for number, size in enumerate(SIZES):
                assert server.ask(0, number, os.urandom(size)).content == answers[size]
            server.link.finish(timeout_s=10)
            assert client.wait() is None
            wait_until(lambda: len(server.sent) == len(SIZES), "all tasks")
            wire = server.link.wire_bytes()
            assert wire is not None
            up, down = proxy.totals()
            assert wire[0].received == pytest.approx(up, rel=0.02)
            assert wire[0].sent == pytest.approx(down, rel=0.02)
            # On the wire is what was framed, and a little more: HTTP/2, TLS records and the handshake.
            framed_up = sum(message.framed_bytes for _, message in server.answers)
            framed_down = sum(num_bytes for _, _, num_bytes in server.sent)
            assert sum(SIZES) < framed_down < sum(SIZES) + 40 * 10
            assert framed_up < wire[0].received < framed_up * 1.02 + 5000
            assert framed_down < wire[0].sent < framed_down * 1.02 + 5000
        finally:
            proxy.close()


def test_a_slots_bytes_add_up_over_its_connections() -> None:
    with serving() as server:
        proxy = CountingProxy(server.link.port)
        try:
            client = Client(f"127.0.0.1:{proxy.port}")
            for number in range(3):
                server.wait_for(0)
                assert server.ask(0, number, os.urandom(300_000)).content
                assert server.link.wire_bytes() is not None  # a poll: a cut may lose what came after the last
                proxy.cut()
                joined = number + 2
                wait_until(lambda: server.events.count(("join", 0)) == joined, "the next session")  # noqa: B023
            server.link.finish(timeout_s=10)
            assert client.wait() is None
            wire = server.link.wire_bytes()
            assert wire is not None
            up, down = proxy.totals()
            assert up > 900_000
            assert wire[0].received == pytest.approx(up, rel=0.02)
            assert wire[0].sent == pytest.approx(down, rel=0.02)
        finally:
            proxy.close()


@pytest.mark.parametrize(
    ("listen", "host"), [("127.0.0.1", "127.0.0.1"), ("[::]", "127.0.0.1"), ("[::]", "[::1]")]
)
def test_clients_of_one_process_are_counted_apart(listen: str, host: str) -> None:
    with serving(listen=f"{listen}:0") as server:
        clients = [Client(f"{host}:{server.link.port}", slot=slot) for slot in range(2)]
        server.wait_for(0, 1)
        for slot, size in ((0, 100_000), (1, 300_000)):
            server.ask(slot, slot, os.urandom(size))
        server.link.finish(timeout_s=10)
        assert [client.wait() for client in clients] == [None, None]
        wire = server.link.wire_bytes()
        assert wire is not None
        for slot, size in ((0, 100_000), (1, 300_000)):
            assert wire[slot].received == pytest.approx(size, rel=0.02)
            assert wire[slot].sent == pytest.approx(size, rel=0.02)
