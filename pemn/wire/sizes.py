"""How long an encoded content is, without encoding it."""

from __future__ import annotations

from dataclasses import replace

from pemn.wire import limits
from pemn.wire.messages import Content
from pemn.wire.payload import Payload


def field_size(num_bytes: int) -> int:
    """Returns what a field of so many bytes takes: tag, length, bytes; its number is below 16."""
    return 1 + -(-max(num_bytes, 1).bit_length() // 7) + num_bytes


def content_sizes(content: Content, *, estimate: bool) -> tuple[int, dict[str, int]]:
    """Returns the length of `encode(content)`, and that of each message in it, by its field's name.

    Args:
        content: A task or an answer.
        estimate: Whether payloads are estimated; if not, they are coded to be counted.
    """
    others = {"spec": content.spec, "ack": content.ack, "error": content.error}
    by_kind = {name: part.to_proto().ByteSize() for name, part in others.items() if part is not None}
    if content.broadcast is not None:
        rest = replace(content.broadcast, change=b"").to_proto().ByteSize()
        by_kind["broadcast"] = rest + _payload_size(content.broadcast.change, estimate)
    if content.update is not None:
        rest = replace(content.update, vote=b"").to_proto().ByteSize()
        by_kind["update"] = rest + _payload_size(content.update.vote, estimate)
    whole = sum(field_size(size) for size in by_kind.values()) + field_size(limits.CHECK_BYTES)
    return whole, by_kind


def _payload_size(payload: bytes | Payload, estimate: bool) -> int:
    size = payload.about if isinstance(payload, Payload) and estimate else len(payload)
    return field_size(size) if size else 0
