from __future__ import annotations

import contextlib
import datetime
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pemn.errors import (
    ConfigError,
    LocalError,
    MalformedFrame,
    NetworkError,
    RemoteError,
    TlsError,
    WrongProtocol,
    WrongSpec,
    every_error,
)
from pemn.link.client import LinkClient, LinkState
from pemn.link.provision import provision
from pemn.link.tls import server_credentials
from pemn.link.v1 import link_pb2 as pb
from pemn.link.v1.link_pb2_grpc import LinkServiceServicer, add_LinkServiceServicer_to_server
from tests.link_rig import Client, Server, serving, wait_until
from tests.proxy import CountingProxy


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    provision(directory, [], 0)
    return directory


@contextlib.contextmanager
def serving_tls(pki: Path) -> Iterator[Server]:
    with serving(credentials=server_credentials(pki / "server.pem", pki / "server.key")) as server:
        yield server


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# Away and back


def test_a_client_comes_back_after_its_connection_was_cut() -> None:
    with serving() as server:
        proxy = CountingProxy(server.link.port)
        try:
            started = threading.Event()
            go_on = threading.Event()
            done = []

            def handle(_: str, content: bytes) -> bytes:
                started.set()
                go_on.wait(10)
                done.append(content)
                return content

            client = Client(f"127.0.0.1:{proxy.port}", handle=handle)
            server.wait_for(0)
            server.link.send(0, 1, "train", b"lost")
            assert started.wait(10)
            proxy.cut()
            wait_until(lambda: ("leave", 0) in server.events, "the server to notice")
            go_on.set()
            wait_until(lambda: server.events.count(("join", 0)) == 2, "the client's return")
            assert server.answers == []  # the answer went down with its connection
            assert server.ask(0, 1, b"again").content == b"again"
            assert done == [b"lost", b"again"]
            server.link.finish(timeout_s=10)
            assert client.wait() is None
            assert [state for state, _ in client.states] == [
                LinkState.CONNECTING,
                LinkState.CONNECTED,
                LinkState.AWAY,
                LinkState.CONNECTING,
                LinkState.CONNECTED,
                LinkState.DONE,
            ]
        finally:
            proxy.close()


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_finds_a_server_that_restarts(pki: Path, tls: bool) -> None:
    credentials = server_credentials(pki / "server.pem", pki / "server.key") if tls else None
    with serving(credentials=credentials) as server:
        client = Client(server.address, ca=pki / "ca.pem" if tls else None)
        server.wait_for(0)
        assert server.ask(0, 1, b"before").content == b"before"
        address = server.address
    wait_until(lambda: (LinkState.AWAY, "connection refused") in client.states, "the client to notice")
    with serving(listen=address, credentials=credentials) as server:
        server.wait_for(0)
        assert server.ask(0, 1, b"after").content == b"after"
        server.link.finish(timeout_s=10)
        assert client.wait() is None


def test_a_client_may_come_before_its_server() -> None:
    address = f"127.0.0.1:{free_port()}"
    client = Client(address)
    wait_until(lambda: client.states, "the first attempt")
    with serving(listen=address) as server:
        server.wait_for(0)
        server.link.finish(timeout_s=10)
        assert client.wait() is None


def test_a_client_gives_up_after_a_while_and_says_why() -> None:
    address = f"127.0.0.1:{free_port()}"
    begin = time.monotonic()
    error = Client(address, give_up_after_s=1.6).wait()
    assert 1.6 <= time.monotonic() - begin < 8
    assert type(error) is NetworkError
    assert str(error) == f"server away for 2 s: got connection refused; in {address}"


def test_a_name_that_does_not_resolve_may_do_so_later() -> None:
    error = Client("no-such-host.invalid:1", give_up_after_s=0.1).wait(60)
    assert type(error) is NetworkError
    assert "server away" in str(error)


def test_pauses_between_attempts_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr("pemn.link.client.time.sleep", sleep)
    link = LinkClient(f"127.0.0.1:{free_port()}", ca=None, client=bytes(16), slot=0, num_slots=1)
    with pytest.raises(KeyboardInterrupt):
        link.run(lambda _, content: content, give_up_after_s=None)
    assert all(min(10, 0.2 * 2**n) / 2 <= pause <= min(10, 0.2 * 2**n) for n, pause in enumerate(pauses))
    assert pauses[-1] >= 5
    assert len(set(pauses[-3:])) == 3  # or all clients would come back at the same moment


# What no waiting mends


def test_a_session_over_tls(pki: Path) -> None:
    with serving_tls(pki) as server:
        client = Client(f"localhost:{server.link.port}", ca=pki / "ca.pem")
        server.wait_for(0)
        assert server.ask(0, 1, b"secret").content == b"secret"
        server.link.finish(timeout_s=10)
        assert client.wait() is None


def test_another_authority_is_a_tls_error_at_once(pki: Path, tmp_path: Path) -> None:
    provision(tmp_path, [], 0)
    with serving_tls(pki) as server:
        error = Client(server.address, ca=tmp_path / "ca.pem").wait(10)
        assert isinstance(error, TlsError)
        assert "the server's certificate is not trusted" in str(error)
        assert "got issuer CN=PEMN authority " in str(error)
        assert f"wanted one of {tmp_path / 'ca.pem'}; in {server.address}" in str(error)


def test_another_host_name_is_a_tls_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pemn.link.certificates.ALWAYS_NAMED", ("server.example", "192.0.2.1"))
    provision(tmp_path, [], 0)
    with serving_tls(tmp_path) as server:
        for host in ("127.0.0.1", "localhost"):
            error = Client(f"{host}:{server.link.port}", ca=tmp_path / "ca.pem").wait(10)
            assert isinstance(error, TlsError)
            assert str(error) == (
                "the server's certificate is for other hosts: "
                f"got server.example, 192.0.2.1; wanted {host}; in a certificate trusted by {tmp_path / 'ca.pem'}"
            )


def reissue(directory: Path, first_day: int, last_day: int) -> bytes:
    """The server's certificate as its authority would sign it for other days, counted from today."""
    old = x509.load_pem_x509_certificate((directory / "server.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now + datetime.timedelta(first_day))
    builder = builder.not_valid_after(now + datetime.timedelta(last_day))
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(("first_day", "last_day"), [(-30, -1), (1, 30)])
def test_a_certificate_out_of_date_is_a_tls_error_at_once(pki: Path, first_day: int, last_day: int) -> None:
    pair = (pki / "server.key").read_bytes(), reissue(pki, first_day, last_day)
    with serving(credentials=grpc.ssl_server_credentials([pair])) as server:
        error = Client(server.address, ca=pki / "ca.pem").wait(10)
        assert isinstance(error, TlsError)
        assert "the server's certificate is out of date: got 20" in str(error)
        assert "which this machine's clock says" in str(error)


def test_plain_against_tls_names_the_flag_at_once(pki: Path) -> None:
    with serving_tls(pki) as server:
        error = Client(server.address).wait(10)
        assert isinstance(error, TlsError)
        assert (
            str(error)
            == f"the server speaks TLS: got --insecure; wanted --credentials DIR; in {server.address}"
        )


def test_tls_against_plain_names_the_flag_at_once(pki: Path) -> None:
    with serving() as server:
        error = Client(server.address, ca=pki / "ca.pem").wait(10)
        assert isinstance(error, TlsError)
        got = f"got TLS with {pki / 'ca.pem'}; wanted --insecure; in {server.address}"
        assert str(error) == f"the server speaks no TLS: {got}"


def test_what_is_no_server_of_ours_is_waited_for_and_then_named(pki: Path) -> None:
    """Another service may sit on the port while ours starts; so there is no error at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def slam() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=slam)
        thread.start()
        for ca in (None, pki / "ca.pem"):
            error = Client(address, ca=ca, give_up_after_s=0.5).wait()
            assert type(error) is NetworkError
            assert "server away" in str(error)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_the_clients_own_files_are_checked_before_it_connects(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        LinkClient("h:1", ca=tmp_path / "missing.pem", client=bytes(16), slot=0, num_slots=1)
    with pytest.raises(ConfigError, match="HOST:PORT"):
        LinkClient("host", ca=None, client=bytes(16), slot=0, num_slots=1)


# What a server may say


class Scripted(LinkServiceServicer):
    """A server that says what it is told to, whatever the client sends."""

    def __init__(self, *responses: pb.SessionResponse) -> None:
        self._responses = responses

    def Session(self, request_iterator: object, context: object) -> Iterator[pb.SessionResponse]:  # noqa: N802
        yield from self._responses


@contextlib.contextmanager
def scripted(*responses: pb.SessionResponse) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    if responses:
        add_LinkServiceServicer_to_server(Scripted(*responses), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


WELCOME = pb.SessionResponse(welcome=pb.Welcome())


@pytest.mark.parametrize("code", every_error())
def test_a_refusal_raises_the_error_of_its_code(code: int) -> None:
    refusal = pb.SessionResponse(refusal=pb.Refusal(code=code, text="because of that"))
    with scripted(refusal) as address:
        error = Client(address).wait(10)
        assert type(error) is every_error()[code]
        assert str(error) == "the server refuses: because of that"


def test_a_refusal_of_tomorrow_is_a_remote_error_and_plays_no_tricks() -> None:
    refusal = pb.SessionResponse(refusal=pb.Refusal(code=999, text="new\n\x1b[2Jreason" + "x" * 5000))
    with scripted(WELCOME, refusal) as address:
        error = Client(address).wait(10)
        assert type(error) is RemoteError
        assert str(error).startswith("the server refuses: new [2Jreason")
        assert len(str(error)) < 1100


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (pb.SessionResponse(), "empty message"),
        (pb.SessionResponse(part=pb.Part(message_id=1, size=2**32 - 1, action="train", data=b"x")), "size"),
        (pb.SessionResponse(part=pb.Part(message_id=1, size=1, data=b"x")), "action"),
        (
            pb.SessionResponse(part=pb.Part(message_id=1, size=9, action="train", data=b"x")),
            "length of a part",
        ),
    ],
)
def test_a_server_that_breaks_the_rules_is_left(response: pb.SessionResponse, says: str) -> None:
    with scripted(WELCOME, response) as address:
        error = Client(address).wait(10)
        assert isinstance(error, MalformedFrame)
        assert says in str(error)


def test_a_server_without_the_link_is_another_protocol() -> None:
    with scripted() as address:
        assert isinstance(Client(address).wait(10), WrongProtocol)


def test_another_number_of_slots_is_refused() -> None:
    with serving(num_slots=3) as server:
        error = Client(server.address, num_slots=2).wait(10)
        assert isinstance(error, WrongSpec)
        assert str(error) == "the server refuses: number of shares: got 2; wanted 3; in hello"


# The caller's side


@pytest.mark.parametrize("cause", [ValueError("bug"), ConfigError("no data")])
def test_what_a_handler_raises_comes_out(cause: Exception) -> None:
    def handle(_: str, content: bytes) -> bytes:
        raise cause

    with serving() as server:
        client = Client(server.address, handle=handle)
        server.wait_for(0)
        server.link.send(0, 1, "train", b"x")
        assert client.wait(10) is cause
        wait_until(lambda: server.events[-1] == ("leave", 0), "the server to notice")


def test_an_empty_answer_is_a_bug() -> None:
    with serving() as server:
        client = Client(server.address, handle=lambda *_: b"")
        server.wait_for(0)
        server.link.send(0, 1, "train", b"x")
        assert isinstance(client.wait(10), LocalError)


CLIENT_PROCESS = """
import signal, sys, time
from pemn.link.client import LinkClient
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background has it ignored
link = LinkClient(sys.argv[1], ca=None, client=bytes(16), slot=0, num_slots=2)
try:
    link.run(lambda *_: time.sleep(60) or b"x", on_state=lambda *s: print(s, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("when", ["away", "idle", "working"])
def test_ctrl_c_ends_a_client_promptly_and_quietly(when: str) -> None:
    with serving() as server:
        address = f"127.0.0.1:{free_port()}" if when == "away" else server.address
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT_PROCESS, address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            sign = "away" if when == "away" else "connected"
            while sign not in process.stdout.readline():
                pass
            if when == "working":
                server.link.send(0, 1, "train", b"x")
                wait_until(lambda: server.sent, "the task")
            time.sleep(0.3)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert time.monotonic() - begin < 3
            assert process.stdout.read().splitlines()[-1] == "interrupted"
            assert process.stderr.read() == ""


def test_a_client_that_cannot_go_on_says_why_and_leaves() -> None:
    handled: list[bytes] = []

    def handle(_: str, content: bytes) -> bytes:
        handled.append(content)
        raise ConfigError("the data are gone")

    with serving() as server:
        link = LinkClient(server.address, ca=None, client=bytes(16), slot=0, num_slots=2)
        ended: list[Exception] = []

        def work() -> None:
            try:
                link.run(handle, explain=lambda error: f"because {error}".encode())
            except ConfigError as error:
                ended.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        server.wait_for(0)
        server.link.send(0, 1, "train", b"first")
        server.link.send(0, 2, "train", b"second")
        thread.join(20)
        assert not thread.is_alive()
        server.wait_for()
    assert [str(error) for error in ended] == ["the data are gone"]
    assert [(slot, m.message_id, m.content) for slot, m in server.answers] == [
        (0, 1, b"because the data are gone")
    ]
    assert handled == [b"first"]
