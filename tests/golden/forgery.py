"""Damaged bytes, and what becomes of them: both implementations must agree."""

from __future__ import annotations

import random
from collections.abc import Callable

from pemn.errors import RemoteError
from tests.golden.reference_bytes import Refused


def accepts(read: Callable[[], object]) -> bool:
    try:
        read()
    except (RemoteError, Refused):
        return False
    return True


def same_fate(read: Callable[[], object], read_plainly: Callable[[], object]) -> None:
    """Both implementations take some bytes as the same, or both refuse them."""
    taken = accepts(read)
    assert taken == accepts(read_plainly)
    if taken:
        assert read() == read_plainly()


def damage(data: bytes, draw: random.Random) -> bytes:
    """Changes bits, cuts, inserts and repeats."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(len(changed) + 1)
        kind = draw.choice(["bit", "byte", "cut", "insert", "twice"])
        if kind == "bit" and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "byte" and at < len(changed):
            changed[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == "cut":
            del changed[at : at + draw.randint(1, 3)]
        elif kind == "insert":
            changed[at:at] = draw.randbytes(draw.randint(1, 3))
        else:
            changed[at:at] = changed[at : at + draw.randint(1, 8)]
    return bytes(changed)
