"""The server's end of the link: every client's session in one background thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

import grpc
import grpc.aio

from pemn.errors import LocalError, NetworkError, PemnError, UnknownClient
from pemn.link.address import Address, check_free
from pemn.link.enrolment import Enrolment
from pemn.link.frames import SERVICE, SESSION
from pemn.link.keepalive import server_options
from pemn.link.meter import TcpMeter, Traffic, is_supported
from pemn.link.parts import Message
from pemn.link.session import Session, check_proof, read_hello
from pemn.link.stream import Context, Stream
from pemn.link.v1 import link_pb2 as pb
from pemn.wire import limits

MAX_STRANGERS = 256
"""Streams beside two a slot, an old one and its successor: bounds the memory for those without a hello."""

_METER_INTERVAL_S = 1
"""What a connection carried after the last look is lost when it closes."""

_STOP_TIMEOUT_S = 5


def _ignore(*_: object) -> None:
    pass


class LinkServer:
    """Gives tasks to clients and takes their answers; opaque bytes both ways.

    All sessions share one event loop in a thread of its own. Callbacks are called in that thread: they must be quick
    and must not call back, except `send`. The other methods may be called from any thread.

    Args:
        listen: HOST:PORT; port 0 picks a free one.
        credentials: From `pemn.link.tls.server_credentials`; None: no TLS.
        num_slots: Clients of the run, >= 1.
        max_task_bytes: Longest message to a client.
        max_answer_bytes: Longest message from a client.
        on_message: Called with a slot and its answer. A PemnError that it raises ends the session as a refusal.
        on_join: Called with a slot when its session begins; what was sent to an earlier session is void.
        on_leave: Called with a slot when its session ends.
        on_sent: Called with slot, message id and framed bytes when the last part of a task is on its way; a quick
            answer may come first.
        enrolment: Which keys may take part; None: whoever comes.
        on_refused: Called with a peer, as gRPC names it, and the error that ended its stream.

    Raises:
        ConfigError: If `listen` is no address.
    """

    def __init__(
        self,
        listen: str,
        *,
        credentials: grpc.ServerCredentials | None,
        num_slots: int,
        max_task_bytes: int,
        max_answer_bytes: int,
        on_message: Callable[[int, Message], None],
        on_join: Callable[[int], None] = _ignore,
        on_leave: Callable[[int], None] = _ignore,
        on_sent: Callable[[int, int, int], None] = _ignore,
        on_refused: Callable[[str, PemnError], None] = _ignore,
        enrolment: Enrolment | None = None,
    ) -> None:
        self._address = Address.parse(listen)
        self._credentials = credentials
        self._num_slots = num_slots
        self._max_task_bytes, self._max_answer_bytes = max_task_bytes, max_answer_bytes
        self._on_message = on_message
        self._on_join = on_join
        self._on_leave = on_leave
        self._on_sent = on_sent
        self._on_refused = on_refused
        self._enrolment = enrolment
        self._sessions: dict[int, Session] = {}
        self._finishing = False
        self._meter: TcpMeter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that the server listens on, once it has started."""
        return self._address.port

    def start(self) -> None:
        """Begins to listen.

        Raises:
            NetworkError: If the address cannot be listened on.
        """
        if self._thread is not None:
            raise LocalError("the server was started before")
        check_free(self._address)
        listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=[listening], name="pemn-link", daemon=True)
        self._thread.start()
        self._address = self._address._replace(port=listening.result())

    def send(self, slot: int, message_id: int, action: str, content: bytes) -> None:
        """Sends a task to a slot; without a session there, it is dropped.

        Args:
            slot: Who gets it.
            message_id: 64-bit id that the answer will have.
            action: What to do, 1 .. 256 bytes.
            content: 1 .. `max_task_bytes` bytes.

        Raises:
            LocalError: If action or content is too short or too long, or the server is not running.
        """
        if not 1 <= len(content) <= self._max_task_bytes:
            raise LocalError("length of content", got=len(content), wanted=f"1 .. {self._max_task_bytes}")
        if not 1 <= len(action.encode()) <= limits.MAX_TEXT_BYTES:
            raise LocalError("action", got=repr(action), wanted=f"1 .. {limits.MAX_TEXT_BYTES} bytes")
        self._running_loop().call_soon_threadsafe(self._send, slot, message_id, action, content)

    def connected(self) -> list[int]:
        """Returns the slots that have a session."""
        return sorted(self._sessions)  # copied in one step: the loop's thread may change it meanwhile

    def expel(self, slot: int, error: PemnError) -> None:
        """Ends a slot's session, if it has one, with a refusal."""
        self._running_loop().call_soon_threadsafe(self._expel, slot, error)

    def finish(self, timeout_s: float) -> None:
        """Tells every client that the run is over, now or when it comes, and waits until those here have left."""
        loop = self._running_loop()
        asyncio.run_coroutine_threadsafe(self._finish(timeout_s), loop).result()

    def stop(self) -> None:
        """Ends all sessions and the thread; clients that were not told that the run is over will try to come back."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def wire_bytes(self) -> dict[int, Traffic] | None:
        """Returns the on-wire bytes of each slot over all its connections so far, or None where no kernel tells.

        What a cut connection carried in its last second may be missing.
        """
        if self._meter is None:
            return None
        return {slot: traffic for slot, traffic in self._meter.totals().items() if slot is not None}

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            raise LocalError("the server is not running")
        return self._loop

    # What follows runs in the loop's thread.

    def _run(self, listening: Future[int]) -> None:
        try:
            asyncio.run(self._serve(listening))
        except BaseException as error:
            if listening.done():
                raise
            listening.set_exception(error)

    async def _serve(self, listening: Future[int]) -> None:
        server = grpc.aio.server(
            options=server_options(), maximum_concurrent_rpcs=2 * self._num_slots + MAX_STRANGERS
        )
        # No serialisers: bytes that are no message are ours to refuse, and to count.
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            SESSION: grpc.stream_stream_rpc_method_handler(self._serve_client)
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            if self._credentials is None:
                port = server.add_insecure_port(str(self._address))
            else:
                port = server.add_secure_port(str(self._address), self._credentials)
        except RuntimeError as error:
            raise NetworkError("cannot listen", where=self._address) from error
        await server.start()
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._meter = TcpMeter(port) if is_supported() else None
        listening.set_result(port)
        meter = asyncio.create_task(self._watch_meter())
        await self._stopping.wait()
        meter.cancel()
        await server.stop(grace=None)
        # gRPC writes a traceback about every call that the end of the loop cuts short.
        if calls := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(calls, timeout=_STOP_TIMEOUT_S)

    async def _watch_meter(self) -> None:
        while self._meter is not None:
            self._meter.poll()
            await asyncio.sleep(_METER_INTERVAL_S)

    async def _serve_client(self, _: object, context: Context) -> None:
        stream = Stream(context)
        try:
            hello = await read_hello(stream, self._num_slots)
            if self._enrolment is not None:
                await check_proof(stream, hello, self._enrolment)
            session = Session(
                stream,
                hello,
                self._max_answer_bytes,
                on_message=lambda message: self._on_message(hello.slot, message),
                on_sent=lambda message_id, num_bytes: self._on_sent(hello.slot, message_id, num_bytes),
            )
            try:
                self._enter(session, hello, stream.peer)
                await session.run()
            finally:
                self._leave(session)
        except PemnError as error:
            self._on_refused(stream.peer, error)
            await stream.refuse(error)

    def _enter(self, session: Session, hello: pb.Hello, peer: str) -> None:
        if self._enrolment is not None:
            self._enrolment.check_hello(
                hello
            )  # once more: it may have been revoked while it proved who it is
        if self._meter is not None:
            self._meter.assign(peer, session.slot)
        before = self._sessions.get(session.slot)
        if before is not None:
            if before.client_id != session.client_id:
                raise UnknownClient("slot is taken by another client", got=session.slot)
            # The client knows better than we do that its last connection is dead.
            self._leave(before)
            before.end(UnknownClient("a new session of the same client took its slot", got=session.slot))
        self._sessions[session.slot] = session
        session.send(pb.SessionResponse(welcome=pb.Welcome()))
        if self._finishing:
            session.send(pb.SessionResponse(goodbye=pb.Goodbye()))
        self._on_join(session.slot)

    def _leave(self, session: Session) -> None:
        if self._sessions.get(session.slot) is session:
            del self._sessions[session.slot]
            self._on_leave(session.slot)
        if self._meter is not None:
            self._meter.poll()

    def _expel(self, slot: int, error: PemnError) -> None:
        if slot in self._sessions:
            self._sessions[slot].end(error)

    def _send(self, slot: int, message_id: int, action: str, content: bytes) -> None:
        if slot in self._sessions:
            self._sessions[slot].send_task(message_id, action, content)

    async def _finish(self, timeout_s: float) -> None:
        self._finishing = True
        sessions = list(self._sessions.values())
        for session in sessions:
            session.send(pb.SessionResponse(goodbye=pb.Goodbye()))
        closed = [asyncio.create_task(session.closed.wait()) for session in sessions]
        if closed:
            _, late = await asyncio.wait(closed, timeout=timeout_s)
            for task in late:
                task.cancel()
