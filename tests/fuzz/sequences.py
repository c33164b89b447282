"""Damage to coded sequences by someone who knows the coders, and bombs: few bytes that claim much work."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Coder, rans
from pemn.errors import RemoteError
from tests.fuzz.codes import Code, MovesCode, forced, lenient
from tests.fuzz.tree import LIES, read_varint, varint

RAW, RICE, RANS = (bytes([coder]) for coder in Coder)

_AROUND_FEW_LANES = rans._FEW_LANES - 1, rans._FEW_LANES


def damage(data: bytes, draw: random.Random) -> bytes:
    """Changes a part of a sequence: its coder, a number in its head, states, words, bits, its end."""
    if not data or draw.random() < 0.1:
        return bytes([draw.choice((0, 1, 2, 3, 127, 255))]) + data[draw.randint(0, 1) :]
    if data[:1] == RANS:
        return RANS + _damage_rans(data[1:], draw)
    if data[:1] == RICE:
        return RICE + _damage_rice(data[1:], draw)
    return RAW + _damage_bits(data[1:], draw)


def _damage_bits(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    kind = draw.choice(("bits", "bits", "bits", "last", "longer", "shorter"))
    if kind == "bits" and changed:
        for _ in range(draw.choice((1, 1, 2, 20))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    elif kind == "last" and changed:
        changed[-1] ^= 128 >> draw.randrange(8)
    elif kind == "longer":
        changed += draw.choice((b"\0", b"\1", b"\xff", b"\0\0", bytes(draw.randint(1, 300))))
    else:
        del changed[-draw.choice((1, 1, 2, 3)) :]
    return bytes(changed)


def _number(data: bytes, draw: random.Random) -> bytes:
    """Changes the number that data begin with."""
    value, at = read_varint(data, 0)
    near = max(value + draw.choice((-1, 0, 0, 1, 2)), 0)
    value = draw.choice((near, near, 0, 4095, 4096, 4097, *LIES))
    return varint(value, draw.choice((0, 0, 0, 1, 2, 9))) + data[at:]


def _damage_rice(data: bytes, draw: random.Random) -> bytes:
    at = read_varint(data, 0)[1]
    kind = draw.choice(("number", "K", "bits", "bits"))
    if kind == "number" or at == len(data):
        return _number(data, draw)
    if kind == "K":
        k = draw.choice((data[at] - 1, data[at] + 1, 0, 30, 31, 32, 64, 255)) & 255
        return data[:at] + bytes([k]) + data[at + 1 :]
    return data[: at + 1] + _damage_bits(data[at + 1 :], draw)


def _damage_rans(data: bytes, draw: random.Random) -> bytes:
    lanes, at = read_varint(data, 0)
    if len(data) < at + 4 * lanes:
        return _number(data, draw)
    states = np.frombuffer(data, "<u4", lanes, at).copy()
    words = np.frombuffer(data[: len(data) - (len(data) - at) % 2], "<u2", offset=at + 4 * lanes).tolist()
    kind = draw.choice(
        ("number", "state", "state", "word", "insert", "delete", "swap", "cut", "half", "lane")
    )
    where = draw.randrange(len(words)) if words else 0
    if kind == "number":
        return _number(data, draw)
    if kind == "state":
        lane = draw.randrange(lanes)
        near = int(states[lane]) ^ 1 << draw.randrange(32)
        states[lane] = draw.choice((near, near, 0, 65535, 65536, 65537, (1 << 32) - 1, draw.getrandbits(32)))
    elif kind == "word" and words:
        words[where] ^= 1 << draw.randrange(16)
    elif kind == "insert":
        words[where:where] = [draw.choice((0, 65535, draw.getrandbits(16)))] * draw.choice((1, 1, 2, 500))
    elif kind == "delete":
        del words[where : where + draw.choice((1, 1, 2, 20))]
    elif kind == "swap" and words:
        other = draw.randrange(len(words))
        words[where], words[other] = words[other], words[where]
    elif kind == "cut":
        del words[draw.randint(0, len(words)) :]
    elif kind == "half":
        return data + bytes([draw.getrandbits(8)])
    else:
        states = np.append(states, np.uint32(65536)) if draw.random() < 0.5 else states[:-1]
    return varint(states.size) + states.astype("<u4").tobytes() + np.array(words, "<u2").tobytes()


def rewrite(code: Code, data: bytes, draw: random.Random) -> bytes:
    """Says something else, rightly: a vote, a state or a mask that could have been sent."""
    return code.write(_change(code, _read(code, data), draw))


def respell(code: Code, data: bytes, draw: random.Random) -> bytes:
    """Says the same or something else, but with a coder or a number of lanes that are not those to be used."""
    values = _read(code, data)
    if draw.random() < 0.5:
        values = _change(code, values, draw)
    coder = draw.choice((Coder.RAW, Coder.RICE, Coder.RANS, Coder.RANS))
    with forced(coder, draw.choice((1, 1, 2, 3, 19, 20, 300))):
        return code.write(values)


def _read(code: Code, data: bytes) -> NDArray[np.int8]:
    with lenient():
        try:
            return code.read(data)
        except RemoteError:
            return _nothing(code)


def _nothing(code: Code) -> NDArray[np.int8]:
    return code.before.copy() if isinstance(code, MovesCode) else np.zeros(code.size, np.int8)


def _change(code: Code, values: NDArray[np.int8], draw: random.Random) -> NDArray[np.int8]:
    random_ = np.random.default_rng(draw.getrandbits(32))
    changed, low, high = values.copy(), 0, 2
    if isinstance(code, MovesCode):
        far = draw.choice((1, 2, 9, 127))
        low, high = -far, far + 1
    share = draw.choice((0.0, 0.01, 0.3, 1.0))
    where = random_.random(values.size) < share
    where[draw.randrange(values.size)] = True
    changed[where] = random_.integers(low, high, int(where.sum()))
    return changed


def bomb(num_params: int, draw: random.Random) -> bytes:
    """A sequence that claims as much as it can, or that never comes to an end.

    Words of zeros decode to ones only, wherever the next state is low: in moves every "further?" is then a yes.
    """
    kind = draw.choice(("rice ones", "rice far", "lanes", "endless", "endless", "noise", "raw", "empty"))
    if kind == "rice ones":  # every weight, and after the last one
        return RICE + varint(4096) + bytes([draw.choice((0, 31))]) + b"\xff" * draw.choice((1, 512, 17_000))
    if kind == "rice far":
        count = draw.choice((1, 40, 4096))
        return RICE + varint(count) + b"\x1f" + b"\xff" * (count * 32 // 8)
    if kind == "lanes":
        lanes = draw.choice((1, 4096, 4097, 1 << 28, 1 << 63))
        return RANS + varint(lanes) + b"\xff" * draw.choice((0, 3, 4 * 4096))
    if kind == "raw":
        return RAW + draw.choice((b"\0", b"\xff")) * draw.choice(
            (1, num_params // 8 + 1, num_params, 200_000)
        )
    if kind == "empty":
        return draw.choice((RAW, RICE, RANS, RICE + b"\0", RANS + b"\0", RANS + b"\1", b"\xff"))
    lanes = draw.choice((1, 2, *_AROUND_FEW_LANES, 4096))
    state = draw.choice((65536, (1 << 32) - 1, 0xFFFF8000, 0x00018000))
    size = draw.choice((0, 10, num_params // 16, num_params // 2, 100_000))
    words = (
        draw.randbytes(2 * size) if kind == "noise" else draw.choice((b"\0\0", b"\xff\xff", b"\0\x80")) * size
    )
    return RANS + varint(lanes) + state.to_bytes(4, "little") * lanes + words
