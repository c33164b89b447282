"""What every message is checked for: bounds, and canonical bytes.

Source: docs/wire.md, "Messages".
"""

from __future__ import annotations

import math

from google.protobuf.message import DecodeError, Message

from pemn.errors import MalformedFrame
from pemn.wire import limits
from pemn.wire.scan import scan


def check(right: bool, what: str, *, got: object = None, wanted: object = None) -> None:
    """Refuses a message whose field is wrong.

    Raises:
        MalformedFrame: If not `right`.
    """
    if not right:
        raise MalformedFrame(what, got=got, wanted=wanted)


def check_text(text: str, what: str) -> None:
    """Refuses a name that is empty; `parse` has refused one that is too long.

    Raises:
        MalformedFrame: If it is.
    """
    check(text != "", f"empty {what}")


def check_hash(value: bytes, num_bytes: int, what: str) -> None:
    """Refuses a hash of another length.

    Raises:
        MalformedFrame: If it has one.
    """
    check(len(value) == num_bytes, f"length of {what}", got=len(value), wanted=num_bytes)


def check_round(value: int) -> None:
    """Refuses a round that no run reaches.

    Raises:
        MalformedFrame: If it is one.
    """
    check(value <= limits.MAX_ROUND, "round", got=value, wanted=f"<= {limits.MAX_ROUND}")


def is_minus_zero(value: float) -> bool:
    """Returns whether a float is -0.0: no field may be, for it equals 0.0 and two byte strings would mean the same."""
    return value == 0 and math.copysign(1, value) < 0


def parse(proto: Message, data: bytes) -> None:
    """Reads canonical bytes, in which no list and no text is longer than its limit.

    Raises:
        MalformedFrame: If they are no such message, or not its canonical form.
    """
    # Before protobuf allocates anything. (The stubs know two kinds of descriptors, and scan takes either.)
    scan(proto.DESCRIPTOR, data)  # type: ignore[arg-type]
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise MalformedFrame("not a message", got=f"{len(data)} bytes") from error
    check(proto.SerializeToString(deterministic=True) == data, "not in canonical form")
