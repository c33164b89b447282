from __future__ import annotations

import contextlib
import functools
import os
import queue
import secrets
import socket
import sys
import time
from pathlib import Path

import grpc
import pytest

import pemn.link.keepalive as keepalive_module
from pemn.errors import LocalError, MalformedFrame, NetworkError, UnknownClient
from pemn.link.client import Handler, LinkState
from pemn.link.parts import Message
from pemn.link.server import LinkServer
from pemn.link.v1 import link_pb2 as pb
from pemn.link.v1.link_pb2_grpc import LinkServiceStub
from pemn.wire.limits import MAX_PART_BYTES, PROTOCOL_VERSION
from tests.link_rig import MAX_CONTENT_BYTES, Client, Server, serving, wait_until
from tests.proxy import CountingProxy


def after(delay_s: float) -> Handler:
    """Gives back the content, later."""

    def handle(_: str, content: bytes) -> bytes:
        time.sleep(delay_s)
        return content

    return handle


def test_tasks_go_to_their_slot_and_answers_come_from_it() -> None:
    with serving(num_slots=3) as server:
        clients = [
            Client(
                server.address,
                slot=slot,
                num_slots=3,
                handle=functools.partial(
                    lambda slot, action, content: b"%d %s %s" % (slot, action.encode(), content), slot
                ),
            )
            for slot in (0, 2)
        ]
        server.wait_for(0, 2)
        assert server.ask(2, 2**64 - 1, b"this").content == b"2 train this"
        assert server.ask(0, 0, b"that").content == b"0 train that"
        server.link.finish(timeout_s=10)
        assert [client.wait() for client in clients] == [None, None]
        assert server.link.connected() == []
        assert sorted(server.events) == [("join", 0), ("join", 2), ("leave", 0), ("leave", 2)]


def test_a_client_that_knows_only_link_proto_can_take_part() -> None:
    hello = pb.Hello(protocol_version=PROTOCOL_VERSION, client_id=bytes(16), slot=1, num_slots=2)
    answer = pb.Part(message_id=5, size=10, data=secrets.token_bytes(10))
    content = secrets.token_bytes(MAX_PART_BYTES + 1)
    requests: queue.SimpleQueue[pb.SessionRequest | None] = queue.SimpleQueue()
    with serving() as server, grpc.insecure_channel(server.address) as channel:
        call = LinkServiceStub(channel).Session(iter(requests.get, None))
        requests.put(pb.SessionRequest(hello=hello))
        assert next(call).HasField("welcome")
        server.link.send(1, 5, "query", content)
        first, second = next(call).part, next(call).part
        assert first == pb.Part(
            message_id=5, size=len(content), action="query", data=content[:MAX_PART_BYTES]
        )
        assert second == pb.Part(message_id=5, offset=MAX_PART_BYTES, data=content[MAX_PART_BYTES:])
        requests.put(pb.SessionRequest(part=answer))
        wait_until(lambda: server.answers, "the answer")
        # gRPC puts five bytes before each message.
        framed = pb.SessionRequest(part=answer).ByteSize() + 5
        assert server.answers == [(1, Message(5, "", answer.data, framed))]
        framed = sum(pb.SessionResponse(part=part).ByteSize() + 5 for part in (first, second))
        assert server.sent == [(1, 5, framed)]
        requests.put(None)
        assert list(call) == []
        assert call.code() is grpc.StatusCode.OK


def test_a_port_in_use_is_named() -> None:
    with serving() as server:
        other = Server(listen=server.address)
        with pytest.raises(
            NetworkError, match=f"cannot listen: got Address already in use; in {server.address}"
        ):
            other.link.start()
        other.link.stop()
        with socket.socket() as intruder:
            intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="in use"):
                intruder.bind(("127.0.0.1", server.link.port))


def test_a_port_is_free_again_after_stop() -> None:
    with serving() as server:
        client = Client(server.address, give_up_after_s=0)
        server.wait_for(0)
        address = server.address
    assert isinstance(client.wait(), NetworkError)
    with serving(listen=address) as server:
        assert server.address == address


def test_a_message_to_an_empty_slot_is_dropped() -> None:
    with serving() as server:
        server.link.send(1, 1, "train", b"nobody")
        client = Client(server.address, slot=1)
        server.wait_for(1)
        assert server.ask(1, 2, b"somebody").content == b"somebody"
        assert [message_id for _, message_id, _ in server.sent] == [2]
        server.link.finish(timeout_s=10)
        assert client.wait() is None


def test_a_callers_bugs_are_told() -> None:
    with serving() as server:
        for action, content in (
            ("", b"x"),
            ("x" * 257, b"x"),
            ("train", b""),
            ("train", bytes(MAX_CONTENT_BYTES + 1)),
        ):
            with pytest.raises(LocalError):
                server.link.send(0, 1, action, content)
        with pytest.raises(LocalError, match="started before"):
            server.link.start()
    with pytest.raises(LocalError, match="not running"):
        server.link.send(0, 1, "train", b"x")
    with pytest.raises(LocalError, match="not running"):
        server.link.finish(timeout_s=1)
    server.link.stop()
    assert server.link.wire_bytes() == {}


def test_a_new_session_of_the_same_client_replaces_the_old_one() -> None:
    with serving() as server:
        client_id = secrets.token_bytes(16)
        old = Client(server.address, client=client_id)
        server.wait_for(0)
        new = Client(server.address, client=client_id)
        error = old.wait()
        assert isinstance(error, UnknownClient)
        assert "a new session of the same client took its slot" in str(error)
        assert server.events == [("join", 0), ("leave", 0), ("join", 0)]
        assert server.ask(0, 1, b"to the new one").content == b"to the new one"
        server.link.finish(timeout_s=10)
        assert new.wait() is None


def test_a_taken_slot_is_refused_and_its_owner_stays() -> None:
    with serving() as server:
        owner = Client(server.address)
        server.wait_for(0)
        error = Client(server.address).wait()
        assert isinstance(error, UnknownClient)
        assert "slot is taken by another client: got 0" in str(error)
        assert server.events == [("join", 0)]
        server.link.finish(timeout_s=10)
        assert owner.wait() is None


def test_what_the_owner_of_the_server_refuses_ends_the_session() -> None:
    refused = []

    def refuse(slot: int, message: Message) -> None:
        raise MalformedFrame("no vote", got=message.content)

    link = LinkServer(
        "127.0.0.1:0",
        credentials=None,
        num_slots=1,
        max_task_bytes=100,
        max_answer_bytes=100,
        on_message=refuse,
        on_refused=lambda peer, error: refused.append(error),
    )
    link.start()
    try:
        client = Client(f"127.0.0.1:{link.port}", num_slots=1)
        wait_until(link.connected, "the client")
        link.send(0, 1, "train", b"nonsense")
        error = client.wait()
        assert isinstance(error, MalformedFrame)
        assert str(error) == "the server refuses: no vote: got b'nonsense'"
        assert [str(cause) for cause in refused] == ["no vote: got b'nonsense'"]
    finally:
        link.stop()


def test_a_client_that_comes_late_is_told_that_the_run_is_over() -> None:
    with serving() as server:
        server.link.finish(timeout_s=10)
        late = Client(server.address)
        assert late.wait() is None
        assert late.states[-1][0] is LinkState.DONE


def test_finish_waits_no_longer_than_told() -> None:
    with serving() as server:
        client = Client(server.address, handle=after(1))
        server.wait_for(0)
        server.link.send(0, 1, "train", b"x")
        wait_until(lambda: server.sent, "the task")
        begin = time.monotonic()
        server.link.finish(timeout_s=0.2)
        assert 0.2 <= time.monotonic() - begin < 0.9
        assert server.link.connected() == [0]
        server.link.finish(timeout_s=10)
        assert [message.content for _, message in server.answers] == [b"x"]
        assert client.wait() is None


def test_a_dead_peer_is_noticed_and_a_silent_one_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's half minute, shortened: who answers no pings goes, who only works for a long time stays."""
    monkeypatch.setattr(keepalive_module, "PING_INTERVAL_S", 0.3)
    monkeypatch.setattr(keepalive_module, "PING_TIMEOUT_S", 0.5)
    monkeypatch.setattr(keepalive_module, "MIN_PING_INTERVAL_S", 0.1)
    with serving() as server:
        proxy = CountingProxy(server.link.port)
        try:
            busy = Client(server.address, slot=1, handle=after(4))
            frozen = Client(f"127.0.0.1:{proxy.port}", slot=0)
            server.wait_for(0, 1)
            server.link.send(1, 1, "train", b"long work")
            time.sleep(3)  # a few pings without data
            proxy.frozen = True
            wait_until(lambda: server.link.connected() == [1], "the loss of the frozen client", timeout_s=3)
            wait_until(lambda: LinkState.AWAY in dict(frozen.states), "the client to notice", timeout_s=3)
            proxy.frozen = False
            server.wait_for(0, 1)
            wait_until(lambda: server.answers, "the answer after the long work")
            assert server.answers[0][1].content == b"long work"
            assert server.events.count(("leave", 1)) == 0
            server.link.finish(timeout_s=10)
            assert [busy.wait(), frozen.wait()] == [None, None]
        finally:
            proxy.close()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_unacknowledged_bytes_end_a_connection_after_the_ping_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keepalive_module, "PING_TIMEOUT_S", 7)
    with serving() as server:
        client = Client(server.address)
        server.wait_for(0)
        found = []
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as duplicate:
                ends = (duplicate.getsockname()[1:2], duplicate.getpeername()[1:2])
                if (server.link.port,) in ends:
                    found.append(duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        assert found == [7_000, 7_000]  # the client's end and the server's
        server.link.finish(timeout_s=10)
        assert client.wait() is None


def test_no_figure_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pemn.link.server.is_supported", lambda: False)
    with serving() as server:
        client = Client(server.address)
        server.wait_for(0)
        assert server.link.wire_bytes() is None
        server.link.finish(timeout_s=10)
        assert client.wait() is None
