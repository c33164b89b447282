"""A client's stream as the server sees it: messages in, messages out, one at a time."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from pemn.errors import PemnError
from pemn.link.frames import framed_bytes, refusal_to_proto
from pemn.link.v1 import link_pb2 as pb

Context = grpc.aio.ServicerContext[object, bytes]

_REFUSAL_TIMEOUT_S = 5
"""A peer that does not read is not told why for longer than this."""


class Stream:
    """Reads and writes encoded messages; a cancelled write does no harm to the next.

    Args:
        context: What gRPC gives for the call.
    """

    def __init__(self, context: Context) -> None:
        self.peer = context.peer()
        self._context = context
        self._writing: asyncio.Future[None] | None = None

    async def read(self) -> bytes | None:
        """Returns the next message, or None at the end of the client's side.

        Raises:
            grpc.aio.BaseError: If the call has ended.
        """
        frame = await self._context.read()
        return frame if isinstance(frame, bytes) else None

    async def write(self, response: pb.SessionResponse) -> int:
        """Sends a message and returns what it took on the stream, in bytes.

        Raises:
            grpc.aio.BaseError: If the call has ended.
        """
        if self._writing is not None:
            # Its caller may be gone, but gRPC still has it, and takes no other before that.
            await asyncio.shield(self._writing)
        frame = response.SerializeToString()
        self._writing = asyncio.ensure_future(self._context.write(frame))
        self._writing.add_done_callback(_forget)
        await asyncio.shield(self._writing)
        return framed_bytes(frame)

    async def refuse(self, error: PemnError) -> None:
        """Tells the client why its stream ends.

        The message tells, and the call ends with OK: gRPC may throw unread messages away when it reads another
        status. The status tells only where the message cannot, because the peer does not read.
        """
        refusal = pb.SessionResponse(refusal=refusal_to_proto(error))
        try:
            await asyncio.wait_for(self.write(refusal), _REFUSAL_TIMEOUT_S)
        except (TimeoutError, grpc.aio.BaseError):
            self._context.set_code(grpc.StatusCode[error.grpc_status])
            self._context.set_details(str(error))


def _forget(write: asyncio.Future[None]) -> None:
    """Takes note of a failure that nobody waits for any more, or asyncio would log it."""
    if not write.cancelled():
        write.exception()
