"""The two messages of the stream as bytes, and the name of the call that carries them."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from pemn.errors import MalformedFrame, PemnError, RemoteError, every_error
from pemn.link.v1 import link_pb2 as pb
from pemn.wire import limits

SERVICE = pb.DESCRIPTOR.services_by_name["LinkService"].full_name
SESSION = "Session"
PREFIX_BYTES = 5
"""gRPC puts a flag and a 32-bit length before every message."""


def framed_bytes(frame: bytes) -> int:
    """Returns what an encoded message takes on the stream."""
    return len(frame) + PREFIX_BYTES


def parse_request(frame: bytes) -> pb.SessionRequest:
    """Reads what a client sent.

    Raises:
        MalformedFrame: If the bytes are no message, or an empty one.
    """
    request = pb.SessionRequest()
    _parse(request, frame)
    return request


def parse_response(frame: bytes) -> pb.SessionResponse:
    """Reads what a server sent.

    Raises:
        MalformedFrame: If the bytes are no message, or an empty one.
    """
    response = pb.SessionResponse()
    _parse(response, frame)
    return response


def _parse(message: pb.SessionRequest | pb.SessionResponse, frame: bytes) -> None:
    try:
        message.ParseFromString(frame)
    except DecodeError as error:
        raise MalformedFrame("not a message of the link", got=f"{len(frame)} bytes") from error
    if message.WhichOneof("body") is None:
        raise MalformedFrame("an empty message of the link", got=f"{len(frame)} bytes")


def refusal_to_proto(error: PemnError) -> pb.Refusal:
    """Returns what tells a client of an error."""
    text = str(error).encode(errors="replace")[: limits.MAX_ERROR_TEXT_BYTES].decode(errors="ignore")
    return pb.Refusal(code=error.code, text=text)


def refusal_from_proto(refusal: pb.Refusal) -> PemnError:
    """Returns the error that a server tells of; a text that would play tricks on a terminal is cleaned."""
    error = every_error().get(refusal.code, RemoteError)
    text = "".join(c if c.isprintable() else " " for c in refusal.text[: limits.MAX_ERROR_TEXT_BYTES])
    return error(f"the server refuses: {text}")
