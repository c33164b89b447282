"""One client's stream, seen from the server, from its hello to its end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterable

import grpc.aio

from pemn.errors import MalformedFrame, NotEnrolled, PemnError, UnknownClient, WrongProtocol, WrongSpec
from pemn.link.enrolment import Enrolment
from pemn.link.frames import framed_bytes, parse_request
from pemn.link.keys import NONCE_BYTES, is_signed, signed_hello
from pemn.link.parts import Joiner, Message, split
from pemn.link.stream import Stream
from pemn.link.v1 import link_pb2 as pb
from pemn.wire.checks import check
from pemn.wire.limits import CLIENT_ID_BYTES, PROTOCOL_VERSION

HELLO_TIMEOUT_S = 10
"""A stream without a hello is ended after this long."""

MAX_HELLO_BYTES = 1024


async def read_hello(stream: Stream, num_slots: int) -> pb.Hello:
    """Waits for the first message of a stream and checks it.

    Args:
        stream: Just opened.
        num_slots: How many the server has.

    Raises:
        MalformedFrame: If it is late, too long or no hello.
        WrongProtocol: If it is of another protocol version.
        WrongSpec: If the client counts on another number of slots.
        UnknownClient: If there is no such slot.
    """
    request = await _read_first(stream, "hello")
    hello = request.hello
    if hello.protocol_version != PROTOCOL_VERSION:
        raise WrongProtocol(
            "protocol version", got=hello.protocol_version, wanted=PROTOCOL_VERSION, where="hello"
        )
    if hello.num_slots != num_slots:
        raise WrongSpec(
            "number of shares",
            got=hello.num_slots,
            wanted=num_slots,
            where="hello",
        )
    if hello.slot >= num_slots:
        raise UnknownClient("slot", got=hello.slot, wanted=f"0 .. {num_slots - 1}", where="hello")
    check(len(hello.client_id) == CLIENT_ID_BYTES, "length of client id", got=len(hello.client_id))
    return hello


async def check_proof(stream: Stream, hello: pb.Hello, enrolment: Enrolment) -> None:
    """Lets a client prove that it has the key that its slot was enrolled with.

    Args:
        stream: Whose hello was read.
        hello: What it said.
        enrolment: Who may take part.

    Raises:
        NotEnrolled: If it is not that client.
        MalformedFrame: If its next message is late, too long or no proof.
    """
    client = enrolment.check_hello(hello)
    nonce = secrets.token_bytes(NONCE_BYTES)
    try:
        await stream.write(pb.SessionResponse(challenge=pb.Challenge(nonce=nonce)))
    except grpc.aio.BaseError as error:
        raise MalformedFrame("no proof", got="the end of the call") from error
    request = await _read_first(stream, "proof")
    if not is_signed(client.public_key, request.proof.signature, signed_hello(hello, nonce)):
        raise NotEnrolled("a signature that is not the client's", where=f"slot {hello.slot}")


async def _read_first(stream: Stream, wanted: str) -> pb.SessionRequest:
    """Returns a message of somebody whom nobody knows yet: a short one, and soon."""
    try:
        frame = await asyncio.wait_for(stream.read(), HELLO_TIMEOUT_S)
    except TimeoutError as error:
        raise MalformedFrame(f"no {wanted}", wanted=f"one within {HELLO_TIMEOUT_S} s") from error
    except grpc.aio.BaseError:
        frame = None
    if frame is None:
        raise MalformedFrame(f"no {wanted}", got="the end of the stream")
    check(
        len(frame) <= MAX_HELLO_BYTES, f"length of {wanted}", got=len(frame), wanted=f"<= {MAX_HELLO_BYTES}"
    )
    request = parse_request(frame)
    check(request.WhichOneof("body") == wanted, "message", got=request.WhichOneof("body"), wanted=wanted)
    return request


class Session:
    """A stream whose hello was taken; lives in the server's event loop.

    Args:
        stream: Where it came from.
        hello: Checked.
        max_answer_bytes: Longest answer that is taken.
        on_message: Called with every whole answer.
        on_sent: Called with the id and the framed bytes of every task, once its last part is on its way.
    """

    def __init__(
        self,
        stream: Stream,
        hello: pb.Hello,
        max_answer_bytes: int,
        on_message: Callable[[Message], None],
        on_sent: Callable[[int, int], None],
    ) -> None:
        self.slot = hello.slot
        self.client_id = hello.client_id
        self.closed = asyncio.Event()
        self._stream = stream
        self._on_message = on_message
        self._on_sent = on_sent
        self._joiner = Joiner(max_answer_bytes, tasks=False)
        self._unanswered: list[int] = []
        self._outgoing: asyncio.Queue[tuple[int | None, Iterable[pb.SessionResponse]]] = asyncio.Queue()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send_task(self, message_id: int, action: str, content: bytes) -> None:
        """Queues a task."""
        parts = (pb.SessionResponse(part=part) for part in split(message_id, content, action))
        self._outgoing.put_nowait((message_id, parts))

    def send(self, response: pb.SessionResponse) -> None:
        """Queues a message that is no task."""
        self._outgoing.put_nowait((None, [response]))

    def end(self, error: PemnError) -> None:
        """Ends the session with a refusal."""
        if not self._ended.done():
            self._ended.set_exception(error)

    async def run(self) -> None:
        """Works until the client closes its side.

        Raises:
            PemnError: If the client misbehaves, or `end` was called.
            asyncio.CancelledError: If the connection is lost or the server stops.
        """
        work = [self._ended, asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in work:
                future.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self.closed.set()
        for future in done:
            future.result()

    async def _read(self) -> None:
        with contextlib.suppress(grpc.aio.BaseError):  # the call has ended meanwhile
            while (frame := await self._stream.read()) is not None:
                self._take(frame)

    def _take(self, frame: bytes) -> None:
        request = parse_request(frame)
        check(request.HasField("part"), "message", got=request.WhichOneof("body"), wanted="part")
        message = self._joiner.add(request.part, framed_bytes(frame))
        if message is None:
            return
        # One answer a task: whoever waits for answers never gets more than it asked for.
        check(message.message_id in self._unanswered, "answer without a task", got=message.message_id)
        self._unanswered.remove(message.message_id)
        self._on_message(message)

    async def _write(self) -> None:
        with contextlib.suppress(grpc.aio.BaseError):
            while True:
                message_id, responses = await self._outgoing.get()
                if message_id is not None:
                    self._unanswered.append(message_id)  # before the first part: the answer may overtake us
                total = 0
                for response in responses:
                    total += await self._stream.write(response)
                if message_id is not None:
                    self._on_sent(message_id, total)
