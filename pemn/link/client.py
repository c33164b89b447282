"""A client's end of the link: one task after the other, through cuts and restarts of the server."""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import grpc

from pemn.errors import LocalError, NetworkError, NotEnrolled, PemnError, WrongProtocol
from pemn.link.address import Address
from pemn.link.diagnosis import diagnose
from pemn.link.frames import SERVICE, SESSION, framed_bytes, parse_response, refusal_from_proto
from pemn.link.keepalive import client_options
from pemn.link.keys import NONCE_BYTES, ClientKey, signed_hello
from pemn.link.parts import Joiner, split
from pemn.link.tls import client_credentials
from pemn.link.v1 import link_pb2 as pb
from pemn.wire import limits
from pemn.wire.checks import check

GIVE_UP_AFTER_S = 300.0
FIRST_RETRY_S = 0.2
LAST_RETRY_S = 10.0


class LinkState(StrEnum):
    """Where a client stands."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    AWAY = "away"
    """The server is; the client tries again."""
    DONE = "done"


Handler = Callable[[str, bytes], bytes]
"""Does a task: action and content in, the content of the answer out; may take as long as it needs."""


def _ignore(*_: object) -> None:
    pass


class LinkClient:
    """Answers a server's tasks in the caller's own thread.

    Args:
        server: HOST:PORT.
        ca: Certificates to trust; None: no TLS.
        client: Its key, or where clients are not enrolled an id: 16 bytes, the same whenever this client comes back.
        slot: Which of `num_slots` it is.
        num_slots: Clients of the run.
        max_task_bytes: Longest task that is taken.

    Raises:
        ConfigError: If `server` is no address or `ca` no certificate.
    """

    def __init__(
        self,
        server: str,
        *,
        ca: Path | None,
        client: ClientKey | bytes,
        slot: int,
        num_slots: int,
        max_task_bytes: int = limits.max_task_bytes(limits.MAX_PARAMS),
    ) -> None:
        self._server = Address.parse(server)
        self._ca = ca
        self._credentials = None if ca is None else client_credentials(ca)
        self._key = client if isinstance(client, ClientKey) else None
        self._hello = pb.Hello(
            protocol_version=limits.PROTOCOL_VERSION,
            client_id=client.client_id if isinstance(client, ClientKey) else client,
            slot=slot,
            num_slots=num_slots,
        )
        self._max_task_bytes = max_task_bytes

    def run(
        self,
        handle: Handler,
        *,
        explain: Callable[[PemnError], bytes] | None = None,
        on_state: Callable[[LinkState, str], None] = _ignore,
        give_up_after_s: float | None = GIVE_UP_AFTER_S,
    ) -> None:
        """Works until the server says that the run is over.

        A task whose answer was lost with a connection comes again, and is done again.

        Args:
            handle: Does a task. What it raises ends the run of this client.
            explain: What to answer when `handle` raises, so that the server learns why this client leaves.
            on_state: Called with every change of state and, when the server is away, the reason.
            give_up_after_s: For how long a server may be away; None: for ever.

        Raises:
            NetworkError: If the server was away for too long.
            TlsError: If client and server share no trust.
            PemnError: If the server refuses this client: the class that it names, `UnknownClient` for a taken slot.
            MalformedFrame: If the server sends what is no message of the link.
        """
        last_contact_s = time.monotonic()
        num_failures = 0
        while True:
            on_state(LinkState.CONNECTING, str(self._server))
            session = _Session(self._hello, self._key, handle, explain, self._max_task_bytes)
            with self._channel() as channel:
                over = session.run(
                    channel, on_welcome=lambda: on_state(LinkState.CONNECTED, str(self._server))
                )
            if over:
                on_state(LinkState.DONE, "")
                return
            if session.welcomed:
                last_contact_s, num_failures, reason = time.monotonic(), 0, session.failure
            else:
                reason = diagnose(self._server, self._ca) or session.failure
            on_state(LinkState.AWAY, reason)
            away_s = time.monotonic() - last_contact_s
            if give_up_after_s is not None and away_s >= give_up_after_s:
                raise NetworkError(f"server away for {away_s:.0f} s", got=reason, where=self._server)
            delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2**num_failures) * random.uniform(0.5, 1)
            left_s = delay_s if give_up_after_s is None else give_up_after_s - away_s
            time.sleep(min(delay_s, left_s))
            num_failures = min(num_failures + 1, 16)

    def _channel(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(str(self._server), options=client_options())
        return grpc.secure_channel(str(self._server), self._credentials, options=client_options())


class _Session:
    """One stream, from hello to its end."""

    def __init__(
        self,
        hello: pb.Hello,
        key: ClientKey | None,
        handle: Handler,
        explain: Callable[[PemnError], bytes] | None,
        max_task_bytes: int,
    ) -> None:
        self.welcomed = False
        self.failure = "the stream ended"
        self._over = False
        self._hello, self._key = hello, key
        self._handle, self._explain = handle, explain
        self._fatal: PemnError | None = None
        self._joiner = Joiner(max_task_bytes, tasks=True)
        # gRPC takes from here in a thread of its own; None ends our side of the stream.
        self._outgoing: queue.SimpleQueue[Iterable[pb.SessionRequest] | None] = queue.SimpleQueue()
        self._outgoing.put([pb.SessionRequest(hello=hello)])

    def _requests(self) -> Iterator[bytes]:
        while (requests := self._outgoing.get()) is not None:
            for request in requests:
                yield request.SerializeToString()

    def run(self, channel: grpc.Channel, on_welcome: Callable[[], None]) -> bool:
        """Answers tasks until the stream ends; returns whether the run is over."""
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/{SESSION}")
        call = method(self._requests())
        try:
            for frame in call:
                self._take(frame, on_welcome)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise WrongProtocol("the server has no link", wanted=SERVICE) from error
            self.failure = f"the call ended with {error.code().name}"
        finally:
            self._outgoing.put(None)  # frees gRPC's thread; closing the channel ends the call
        if self._fatal is not None:
            raise self._fatal
        return self._over

    def _take(self, frame: bytes, on_welcome: Callable[[], None]) -> None:
        response = parse_response(frame)
        match response.WhichOneof("body"):
            case "challenge":
                self._prove(response.challenge.nonce)
            case "welcome":
                self.welcomed = True
                on_welcome()
            case "part":
                self._take_part(response.part, framed_bytes(frame))
            case "refusal":
                raise refusal_from_proto(response.refusal)
            case "goodbye":
                self._over = True
                self._outgoing.put(None)  # the server sees our end of the stream and ends its own

    def _prove(self, nonce: bytes) -> None:
        check(len(nonce) == NONCE_BYTES, "length of nonce", got=len(nonce), wanted=NONCE_BYTES)
        if self._key is None:
            raise NotEnrolled("the server takes enrolled clients only", wanted="a key")
        signature = self._key.sign(signed_hello(self._hello, nonce))
        self._outgoing.put([pb.SessionRequest(proof=pb.Proof(signature=signature))])

    def _take_part(self, part: pb.Part, num_bytes: int) -> None:
        task = self._joiner.add(part, num_bytes)
        if task is None or self._fatal is not None:
            return
        try:
            answer = self._handle(task.action, task.content)
        except PemnError as error:
            if self._explain is None:
                raise
            # Said and done: the server ends the stream when it has read this to its end.
            self._fatal, answer = error, self._explain(error)
        if not answer:
            raise LocalError("empty answer", where=task.action)
        self._outgoing.put(pb.SessionRequest(part=part) for part in split(task.message_id, answer))
        if self._fatal is not None:
            self._outgoing.put(None)
