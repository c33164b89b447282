"""Messages of any length in parts that fit gRPC's own limit.

Source: docs/wire.md, "The link".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pemn.errors import LocalError
from pemn.link.frames import PREFIX_BYTES
from pemn.link.v1 import link_pb2 as pb
from pemn.wire import limits
from pemn.wire.checks import check
from pemn.wire.sizes import field_size


@dataclass(frozen=True)
class Message:
    """A whole message.

    Attributes:
        message_id: 64-bit id that the server chose; an answer has the id of its task.
        action: What the client is to do; empty in an answer.
        content: Opaque, at least one byte.
        framed_bytes: What its parts took on the stream, gRPC's prefixes included.
    """

    message_id: int
    action: str
    content: bytes
    framed_bytes: int


def split(message_id: int, content: bytes, action: str = "") -> Iterator[pb.Part]:
    """Yields the parts of a message in order; all but the last are full.

    Args:
        message_id: 64-bit id.
        content: 1 .. 2^32 - 1 bytes.
        action: What the client is to do, for a task; empty for an answer.

    Raises:
        LocalError: If the content is empty.
    """
    if not content:
        raise LocalError("empty message", where=f"message {message_id}")
    for offset in range(0, len(content), limits.MAX_PART_BYTES):
        part = pb.Part(message_id=message_id, offset=offset)
        part.data = content[offset : offset + limits.MAX_PART_BYTES]
        if offset == 0:
            part.size, part.action = len(content), action
        yield part


def framed_size(message_id: int, num_bytes: int, action: str = "") -> int:
    """Returns what the frames of a message take on the stream, gRPC's prefixes included, without making them.

    Args:
        message_id: 64-bit id.
        num_bytes: Length of the content, at least 1.
        action: See `split`.
    """
    total = 0
    for offset in range(0, num_bytes, limits.MAX_PART_BYTES):
        head = pb.Part(message_id=message_id, offset=offset)
        if offset == 0:
            head.size, head.action = num_bytes, action
        num_data = min(num_bytes - offset, limits.MAX_PART_BYTES)
        part = head.ByteSize() + field_size(num_data)
        total += field_size(part) + PREFIX_BYTES
    return total


class Joiner:
    """Puts parts together again, one message after the other.

    Nothing is allocated for what a part announces, only for what has arrived.

    Args:
        max_bytes: Longest message that is taken.
        tasks: Whether the messages are tasks, which have an action, or answers, which have none.
    """

    def __init__(self, max_bytes: int, *, tasks: bool) -> None:
        self._max_bytes = max_bytes
        self._tasks = tasks
        self._first: pb.Part | None = None
        self._data = bytearray()
        self._framed_bytes = 0

    def add(self, part: pb.Part, framed_bytes: int) -> Message | None:
        """Takes the next part.

        Args:
            part: As it came.
            framed_bytes: What it took on the stream.

        Returns:
            The message that this part completes, or None.

        Raises:
            MalformedFrame: If the part does not follow the last one, is not full though another must follow, or
                belongs to a message that is too long.
        """
        first = self._first
        if first is None:
            check(1 <= part.size <= self._max_bytes, "size", got=part.size, wanted=f"1 .. {self._max_bytes}")
            check(bool(part.action) == self._tasks, "action", wanted="one" if self._tasks else "none")
            check(len(part.action.encode()) <= limits.MAX_TEXT_BYTES, "length of action")
            first = part
        else:
            check(part.message_id == first.message_id, "id", got=part.message_id, wanted=first.message_id)
            check(part.size == 0 and not part.action, "size or action", wanted="in the first part only")
        start = len(self._data)
        check(part.offset == start, "offset", got=part.offset, wanted=start)
        wanted = min(first.size - start, limits.MAX_PART_BYTES)
        check(len(part.data) == wanted, "length of a part", got=len(part.data), wanted=wanted)
        self._data += part.data
        self._framed_bytes += framed_bytes
        if len(self._data) < first.size:
            if first is part:
                self._first = pb.Part(message_id=part.message_id, size=part.size, action=part.action)
            return None
        message = Message(first.message_id, first.action, bytes(self._data), self._framed_bytes)
        self._first, self._data, self._framed_bytes = None, bytearray(), 0
        return message
