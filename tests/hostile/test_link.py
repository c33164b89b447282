"""What a stranger can send to the server's port, and that everybody else does not notice."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import pemn.link.server as server_module
import pemn.link.session as session_module
import pemn.link.stream as stream_module
from pemn.errors import MalformedFrame, UnknownClient, WrongProtocol, WrongSpec, every_error
from pemn.link.frames import SERVICE, SESSION
from pemn.link.v1 import link_pb2 as pb
from pemn.wire.limits import MAX_PART_BYTES, PROTOCOL_VERSION
from tests.link_rig import DEADLINE_S, MAX_CONTENT_BYTES, Client, Server, serving, wait_until


class Stranger:
    """A client that sends what it is told to, byte by byte."""

    def __init__(self, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method: Any = self._channel.stream_stream(f"/{SERVICE}/{SESSION}")
        self.call: Any = method(iter(self._frames.get, None), timeout=DEADLINE_S)

    def send(self, frame: bytes | None) -> None:
        self._frames.put(frame)

    def receive(self) -> pb.SessionResponse:
        return pb.SessionResponse.FromString(next(self.call))

    def enter(self, slot: int = 0) -> None:
        self.send(hello(slot=slot))
        assert self.receive().HasField("welcome")

    def refusal(self) -> tuple[type[Exception], str]:
        """Reads up to the end of the stream: why the server ended it."""
        *_, last = map(pb.SessionResponse.FromString, self.call)
        return every_error()[last.refusal.code], last.refusal.text

    def close(self) -> None:
        self.send(None)
        self.call.cancel()
        self._channel.close()


@contextlib.contextmanager
def stranger(server: Server) -> Iterator[Stranger]:
    one = Stranger(server.address)
    try:
        yield one
    finally:
        one.close()


def hello(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "protocol_version": PROTOCOL_VERSION,
        "client_id": secrets.token_bytes(16),
        "slot": 0,
        "num_slots": 2,
    }
    return pb.SessionRequest(hello=pb.Hello(**(fields | changes))).SerializeToString()


def part(**fields: Any) -> bytes:
    return pb.SessionRequest(part=pb.Part(**fields)).SerializeToString()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with an honest client in slot 1, which must still be served when the test is over."""
    with serving() as server:
        honest = Client(server.address, slot=1)
        server.wait_for(1)
        yield server
        assert server.ask(1, 99, b"still there").content == b"still there"
        assert server.events.count(("leave", 1)) == 0
        server.link.finish(timeout_s=10)
        assert honest.wait() is None


@pytest.mark.parametrize(
    ("first", "error", "says"),
    [
        (b"\xff\xff\xff", MalformedFrame, "not a message"),
        (b"", MalformedFrame, "empty message"),
        (part(message_id=1, size=1, data=b"x"), MalformedFrame, "wanted hello"),
        (hello(client_id=bytes(15)), MalformedFrame, "length of client id: got 15"),
        (hello(client_id=bytes(1025)), MalformedFrame, "length of hello"),
        (hello(protocol_version=PROTOCOL_VERSION - 1), WrongProtocol, "got 6; wanted 7"),
        (hello(protocol_version=PROTOCOL_VERSION + 1), WrongProtocol, "got 8; wanted 7"),
        (hello(num_slots=3), WrongSpec, "got 3; wanted 2"),
        (hello(slot=2), UnknownClient, "got 2; wanted 0 .. 1"),
        (hello(slot=1), UnknownClient, "taken by another client"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", "bytes"),
)
def test_a_wrong_first_message_is_refused(
    server: Server, first: bytes, error: type[Exception], says: str
) -> None:
    with stranger(server) as one:
        one.send(first)
        kind, text = one.refusal()
        assert kind is error
        assert says in text
        assert "\n" not in text
    assert [type(cause) for _, cause in server.refused] == [error]
    assert server.refused[0][0].startswith("ipv4:127.0.0.1:")
    assert ("join", 0) not in server.events


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([b"\xff\xff\xff"], "not a message"),
        ([hello()], "wanted part"),
        ([part(message_id=7, data=b"x")], "size: got 0"),
        ([part(message_id=7, size=MAX_CONTENT_BYTES + 1, data=b"x")], "size: got 8388609"),
        ([part(message_id=7, size=2**32 - 1, data=bytes(MAX_PART_BYTES))], "size: got 4294967295"),
        ([part(message_id=7, size=2, data=b"x")], "length of a part: got 1; wanted 2"),
        ([part(message_id=7, size=1, data=b"xx")], "length of a part: got 2; wanted 1"),
        ([part(message_id=7, size=1, data=b"x", offset=1)], "offset: got 1; wanted 0"),
        ([part(message_id=7, size=1, data=b"x", action="train")], "action: wanted none"),
        ([part(message_id=8, size=1, data=b"x")], "answer without a task: got 8"),
        ([part(message_id=7, size=1, data=b"x")] * 2, "answer without a task: got 7"),
    ],
)
def test_a_wrong_answer_ends_the_session(server: Server, frames: list[bytes], says: str) -> None:
    with stranger(server) as one:
        one.enter()
        server.link.send(0, 7, "train", b"do it")
        assert one.receive().part.action == "train"
        for frame in frames:
            one.send(frame)
        kind, text = one.refusal()
        assert kind is MalformedFrame
        assert says in text
    wait_until(lambda: server.events[-1] == ("leave", 0), "the end of the session")


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"message_id": 8, "offset": MAX_PART_BYTES}, "id: got 8; wanted 7"),
        ({"message_id": 7, "offset": 0}, "offset: got 0"),
        ({"message_id": 7, "offset": MAX_PART_BYTES, "size": 1 << 20}, "first part only"),
        ({"message_id": 7, "offset": MAX_PART_BYTES, "action": "x"}, "first part only"),
        ({"message_id": 7, "offset": MAX_PART_BYTES, "data": b"short"}, "length of a part: got 5"),
    ],
)
def test_a_second_part_must_go_on_where_the_first_ended(
    server: Server, second: dict[str, Any], says: str
) -> None:
    full = bytes(MAX_PART_BYTES)
    with stranger(server) as one:
        one.enter()
        server.link.send(0, 7, "train", b"do it")
        one.send(part(message_id=7, size=1 << 20, data=full))
        one.send(part(**({"data": full} | second)))
        kind, text = one.refusal()
        assert kind is MalformedFrame
        assert says in text


def test_half_a_message_is_forgotten_with_its_session(server: Server) -> None:
    with stranger(server) as one:
        one.enter()
        server.link.send(0, 7, "train", b"do it")
        one.send(part(message_id=7, size=1 << 20, data=bytes(MAX_PART_BYTES)))
        one.send(None)
        wait_until(lambda: server.events[-1] == ("leave", 0), "the end of the session")
    assert server.answers == []


SERVER_PROCESS = """
import sys
from pemn.link.server import LinkServer
longest = {"max_task_bytes": 1 << 20, "max_answer_bytes": 1 << 20}
link = LinkServer("127.0.0.1:0", credentials=None, num_slots=2, **longest, on_message=print)
link.start()
print(link.port, flush=True)
sys.stdin.read()
link.stop()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's peak of memory where Linux keeps it")
def test_what_strangers_send_is_not_kept_in_memory() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def peak_kib() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = f"127.0.0.1:{int(process.stdout.readline())}"
        before = peak_kib()
        for num_bytes, count in ((400 << 20, 1), (8 << 20, 24)):
            frame = bytes(num_bytes)
            crowd = [Stranger(address) for _ in range(count)]
            for one in crowd:
                one.send(frame)
            for one in crowd:
                with pytest.raises(grpc.RpcError):
                    one.receive()
                assert one.call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                one.close()
        assert (peak_kib() - before) * 1024 < 16_000_000
        process.stdin.close()
        assert process.wait(timeout=DEADLINE_S) == 0


def fall_silent_under_tasks(server: Server, one: Stranger) -> None:
    """Leaves the server in the middle of a part that nobody takes, and then annoys it."""
    one.enter()
    for number in range(4):
        server.link.send(0, number, "train", os.urandom(MAX_CONTENT_BYTES))
    time.sleep(0.2)
    one.send(b"\xff\xff\xff")
    wait_until(lambda: server.refused, "the refusal")
    wait_until(lambda: server.events[-1] == ("leave", 0), "the end of the session")


def test_a_peer_that_reads_late_still_reads_its_refusal(server: Server) -> None:
    with stranger(server) as one:
        fall_silent_under_tasks(server, one)
        kind, text = one.refusal()
        assert kind is MalformedFrame
        assert "not a message" in text


def test_a_peer_that_reads_too_late_is_told_by_the_status(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_REFUSAL_TIMEOUT_S", 0.1)
    with stranger(server) as one:
        fall_silent_under_tasks(server, one)
        time.sleep(0.3)
        with pytest.raises(grpc.RpcError):
            list(one.call)
        assert one.call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "not a message" in one.call.details()


def test_a_stream_without_hello_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "HELLO_TIMEOUT_S", 0.2)
    with stranger(server) as one:
        kind, text = one.refusal()
        assert kind is MalformedFrame
        assert "within 0.2 s" in text


def test_there_is_room_for_so_many_strangers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_STRANGERS", 3)
    with serving(num_slots=1) as server, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(stranger(server)) for _ in range(5)]  # two for the slot, three beside
        time.sleep(0.3)
        with stranger(server) as one_more:
            one_more.send(hello(num_slots=1))
            with pytest.raises(grpc.RpcError):
                one_more.receive()
            assert one_more.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        waiting[0].close()
        client = Client(server.address, num_slots=1)
        server.wait_for(0)
        server.link.finish(timeout_s=10)
        assert client.wait() is None


def num_threads() -> int:
    return (
        len(list(Path("/proc/self/task").iterdir())) if sys.platform == "linux" else threading.active_count()
    )


def test_a_hundred_idle_connections_cost_no_threads_and_nobody_waits(server: Server) -> None:
    assert server.ask(1, 1, b"warm").content == b"warm"
    before = num_threads()
    with contextlib.ExitStack() as stack:
        for number in range(100):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.link.port)))
            if number % 2:  # half of them speak HTTP/2 and then fall silent
                raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        begin = time.monotonic()
        assert server.ask(1, 2, bytes(1 << 20)).content == bytes(1 << 20)
        assert time.monotonic() - begin < 5
        assert num_threads() - before < 10  # gRPC's own few, however many connections there are


def test_bytes_that_are_no_http2_are_dropped(server: Server) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(1 << 16), b"\x16\x03\x01" + bytes(500)):
        with socket.create_connection(("127.0.0.1", server.link.port), timeout=15) as raw:
            raw.sendall(garbage)
            with contextlib.suppress(ConnectionError):
                while raw.recv(1 << 16):
                    pass


def test_mangled_frames_end_their_own_session_only(server: Server) -> None:
    rng = random.Random(20)
    frames = [
        hello(),
        part(message_id=7, size=40, data=bytes(40)),
        part(message_id=7, size=1 << 20, data=b"x"),
    ]
    for _ in range(150):
        mangled = bytearray(rng.choice(frames))
        for _ in range(rng.randint(1, 4)):
            mangled[rng.randrange(len(mangled))] = rng.randrange(256)
        del mangled[rng.randint(1, len(mangled)) :]
        with stranger(server) as one:
            if rng.random() < 0.5:
                one.enter()
                server.link.send(0, 7, "train", b"do it")
            one.send(bytes(mangled))
            one.send(None)
            with contextlib.suppress(grpc.RpcError):
                list(one.call)
        wait_until(lambda: server.link.connected() == [1], "the end of the session")
    assert len(server.refused) > 100
    assert all(slot == 0 and message.message_id == 7 for slot, message in server.answers)
