"""The second implementation's bytes and bits: docs/wire.md, "Conventions"."""

from __future__ import annotations

from collections.abc import Sequence

Bits = list[int]


class Refused(Exception):
    """Bytes that a receiver must not take."""


def check(right: bool, what: str) -> None:
    if not right:
        raise Refused(what)


def clip(value: int, low: int, high: int) -> int:
    return low if value < low else high if value > high else value


def pack(bits: Sequence[int]) -> bytes:
    out = bytearray(-(-len(bits) // 8))
    for i, bit in enumerate(bits):
        out[i // 8] |= bit << (i % 8)
    return bytes(out)


def unpack(data: bytes) -> Bits:
    return [(byte >> i) & 1 for byte in data for i in range(8)]


def varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


class Reader:
    """Takes bytes one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        check(count <= len(self.data), "the data end too early")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def varint(self) -> int:
        value = 0
        for place in range(10):
            byte = self.take(1)[0]
            value += (byte % 128) << (7 * place)
            if byte < 128:
                check(byte > 0 or place == 0, "varint in a long form")
                return value
        raise Refused("varint without an end")
