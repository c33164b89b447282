"""A second implementation of docs/wire.md, written from the document: plain Python integers and lists, no speed.

It imports nothing of pemn, so the tests that compare the two find what either of them gets wrong.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MASK_64 = (1 << 64) - 1
WEIGHTS, START_LEVELS, DITHER = 0, 1, 2
LOWEST, HIGHEST, HALF, ONE = 66, 65470, 32768, 65536
UNIT = 1 << 24

Shape = tuple[int, ...]
Bits = list[int]


class Refused(Exception):
    """Bytes that a receiver must not take."""


def check(right: bool, what: str) -> None:
    if not right:
        raise Refused(what)


# Conventions


def clip(value: int, low: int, high: int) -> int:
    return low if value < low else high if value > high else value


def pack(bits: Sequence[int]) -> bytes:
    out = bytearray(-(-len(bits) // 8))
    for i, bit in enumerate(bits):
        out[i // 8] |= bit << (i % 8)
    return bytes(out)


def unpack(data: bytes, count: int) -> Bits:
    check(len(data) == -(-count // 8), "length of packed bits")
    bits = [(data[i // 8] >> (i % 8)) & 1 for i in range(8 * len(data))]
    check(not any(bits[count:]), "filling bits")
    return bits[:count]


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


# Random words


def word(key: int, i: int) -> int:
    z = (key + (i + 1) * 0x9E3779B97F4A7C15) & MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64
    return z ^ (z >> 31)


def child(seed: int, *path: int) -> int:
    for step in path:
        seed = word(seed, step)
    return seed


def integers(key: int, count: int) -> list[int]:
    return [(word(key, i // 4) >> 16 * (i % 4)) & 0xFFFF for i in range(count)]


def signs(key: int, count: int) -> Bits:
    return [(word(key, i // 64) >> (i % 64)) & 1 for i in range(count)]


def permutation(key: int, count: int) -> list[int]:
    return sorted(range(count), key=lambda number: word(key, number))


# Weights


def float32(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def sources(strategy: str, shapes: Sequence[Shape]) -> list[tuple[int, int]]:
    """Stream and period of every layer."""
    sizes = [math.prod(shape) for shape in shapes]
    if strategy == "full":
        return list(enumerate(sizes))
    if strategy == "one-layer":
        return [(list(shapes).index(shape), math.prod(shape)) for shape in shapes]
    longest = max(sizes)
    if strategy == "mp":
        period = longest
    else:
        ratio = float(strategy.removeprefix("rp:"))
        period = min(math.floor(longest * ratio) + 1, longest)
    return [(sizes.index(longest), period) for _ in shapes]


def frozen_weights(seed: int, strategy: str, shapes: Sequence[Shape], scales: Sequence[float]) -> list[float]:
    weights = []
    for (stream, period), shape, scale in zip(sources(strategy, shapes), shapes, scales, strict=True):
        negative = signs(child(seed, WEIGHTS, stream), period)
        weights += [(-1.0 if negative[i % period] else 1.0) * scale for i in range(math.prod(shape))]
    return weights


def masked(weights: Sequence[float], mask: Bits) -> list[float]:
    return [weight if bit else 0.0 for weight, bit in zip(weights, mask, strict=True)]


def weights_hash(weights: Sequence[float]) -> bytes:
    return hashlib.sha256(struct.pack(f"<{len(weights)}f", *weights)).digest()


def packed_mask(mask: Bits, shapes: Sequence[Shape]) -> bytes:
    out, rest = b"", mask
    for shape in shapes:
        size = math.prod(shape)
        out, rest = out + pack(rest[:size]), rest[size:]
    return out


# Public state


@dataclass(frozen=True)
class Rule:
    """What a spec says about the public state."""

    seed: int
    num_params: int
    step: int
    eta_num: int = 1
    eta_den: int = 1
    lower_levels: tuple[int, ...] = ()

    def start(self) -> list[int]:
        lower = list(self.lower_levels)
        if not lower:
            return [HALF] * self.num_params
        table = lower + [ONE - level for level in reversed(lower)]
        shift = 16 - int(math.log2(len(table)))
        drawn = integers(child(self.seed, START_LEVELS), self.num_params)
        return [table[u >> shift] for u in drawn]

    def q(self, k: Sequence[int]) -> list[int]:
        return [
            clip(start + steps * self.step, LOWEST, HIGHEST)
            for start, steps in zip(self.start(), k, strict=True)
        ]

    def dither(self, round_: int, slot: int) -> list[int]:
        return integers(child(self.seed, DITHER, round_, slot), self.num_params)


def state_mask(q: Sequence[int]) -> Bits:
    return [int(value > HALF) for value in q]


def state_hash(run_id: int, round_: int, k: Sequence[int]) -> bytes:
    told = b"pemn state" + struct.pack("<QI", run_id, round_) + struct.pack(f"<{len(k)}b", *k)
    return hashlib.sha256(told).digest()[:16]


# Coded masks


def _rare(bits: Bits) -> tuple[int, list[int]]:
    """Z and the gaps of the rare bits."""
    z = int(2 * sum(bits) > len(bits))
    gaps, between = [], 0
    for bit in bits:
        if bit == 1 - z:
            gaps.append(between)
            between = 0
        else:
            between += 1
    return z, gaps


def _encode_group(bits: Bits) -> tuple[bytes, Bits]:
    """Header and string."""
    z, gaps = _rare(bits)
    costs = [sum(gap >> k for gap in gaps) + len(gaps) * (1 + k) for k in range(16)]
    k = costs.index(min(costs))
    count = varint(len(gaps))
    if costs[k] + 8 * len(count) >= len(bits):
        return bytes([32]), bits
    string = []
    for gap in gaps:
        string += [0] * (gap >> k) + [1]
    for gap in gaps:
        string += [(gap >> i) & 1 for i in range(k)]
    return bytes([k + 16 * z]) + count, string


def _group_places(contexts: Sequence[int]) -> list[list[int]]:
    return [[i for i, c in enumerate(contexts) if c == context] for context in sorted(set(contexts))]


def _encode_rice(bits: Bits, groups: list[list[int]]) -> bytes:
    headers, body = b"", []
    for places in groups:
        header, string = _encode_group([bits[i] for i in places])
        headers += header
        body += string
    return headers + pack(body)


def encode_mask(bits: Bits, contexts: Sequence[int] | None = None) -> bytes:
    one = [list(range(len(bits)))] if bits else []
    coded = [b"\x00" + pack(bits), b"\x01" + _encode_rice(bits, one)]
    if contexts is not None:
        coded.append(b"\x02" + _encode_rice(bits, _group_places(contexts)))
    return min(coded, key=lambda code: (len(code), code[0]))


def _decode_rice(data: bytes, count: int, groups: list[list[int]]) -> Bits:
    reader = Reader(data)
    headers = []
    for places in groups:
        header = reader.varint()
        check(header <= 32, "header of a group")
        rare = 0 if header == 32 else reader.varint()
        check(rare <= len(places) // 2, "number of rare bits")
        headers.append((header, rare))
    body = iter(unpack(reader.data, 8 * len(reader.data)))

    def bit() -> int:
        found = next(body, None)
        if found is None:
            raise Refused("the string of bits ends too early")
        return found

    out = [0] * count
    for places, (header, rare) in zip(groups, headers, strict=True):
        if header == 32:
            found = [bit() for _ in places]
        else:
            z, k = divmod(header, 16)
            quotients = []
            for _ in range(rare):
                quotients.append(0)
                while bit() == 0:
                    quotients[-1] += 1
            found = []
            for quotient in quotients:
                gap = (quotient << k) + sum(bit() << i for i in range(k))
                check(gap < len(places), "gap")
                found += [z] * gap + [1 - z]
            check(len(found) <= len(places), "gaps")
            found += [z] * (len(places) - len(found))
        for place, value in zip(places, found, strict=True):
            out[place] = value
    return out


def decode_mask(data: bytes, count: int, contexts: Sequence[int] | None = None) -> Bits:
    check(1 <= len(data) <= count // 8 + 2, "length of a coded mask")
    coder, rest = data[0], data[1:]
    if coder == 0:
        bits = unpack(rest, count)
    elif coder == 1:
        bits = _decode_rice(rest, count, [list(range(count))] if count else [])
    else:
        check(coder == 2 and contexts is not None, "coder")
        bits = _decode_rice(rest, count, _group_places(contexts or []))
    check(encode_mask(bits, contexts) == data, "canonical form of a coded mask")
    return bits


# Flips

_DISTANCE_EDGES = [32 << i for i in range(11)]


def flip_contexts(q: Sequence[int], u: Sequence[int]) -> list[int]:
    distances = [abs(b - a) for a, b in zip(q, u, strict=True)]
    return [sum(edge <= distance for edge in _DISTANCE_EDGES) for distance in distances]


def encode_flips(p: Sequence[int], q: Sequence[int], u: Sequence[int]) -> bytes:
    flips = [int((u_i < p_i) != (u_i < q_i)) for p_i, q_i, u_i in zip(p, q, u, strict=True)]
    return encode_mask(flips, flip_contexts(q, u))


def decode_votes(data: bytes, q: Sequence[int], u: Sequence[int]) -> list[int]:
    flips = decode_mask(data, len(q), flip_contexts(q, u))
    return [flip * (-1 if u_i < q_i else 1) for flip, q_i, u_i in zip(flips, q, u, strict=True)]


# Tally


def start_p_hat(rule: Rule) -> list[int]:
    return [256 * level for level in rule.start()]


def learn(rule: Rule, p_hat: Sequence[int], votes: Sequence[Sequence[int]]) -> list[int]:
    tally = [sum(column) for column in zip(*votes, strict=True)]
    return [
        clip(p + (rule.eta_num * t * UNIT) // (rule.eta_den * len(votes)), 0, UNIT)
        for p, t in zip(p_hat, tally, strict=True)
    ]


def settle(rule: Rule, p_hat: Sequence[int], k: Sequence[int]) -> list[int]:
    return [
        clip(k_i + (2 * (p - 256 * q) + 256 * rule.step) // (2 * 256 * rule.step), -127, 127)
        for p, q, k_i in zip(p_hat, rule.q(k), k, strict=True)
    ]


# Moves

_ARCSINE_EDGES = [630, 2495, 5523, 9598, 14564, 20229, 26376, 32768]
_ARCSINE_EDGES += [39161, 45308, 50973, 55939, 60014, 63042, 64907]


def move_contexts(q: Iterable[int]) -> list[int]:
    return [sum(edge <= value for edge in _ARCSINE_EDGES) for value in q]


def encode_moves(moved: Sequence[int], base_q: Sequence[int]) -> bytes:
    planes = max((abs(move) for move in moved), default=0)
    if planes == 0:
        return b""
    out = varint(planes)
    inside = list(zip(moved, move_contexts(base_q), strict=True))
    for j in range(1, planes + 1):
        coded = encode_mask([int(abs(move) >= j) for move, _ in inside], [context for _, context in inside])
        out += varint(len(coded)) + coded
        inside = [(move, context) for move, context in inside if abs(move) >= j]
        if j == 1:
            coded = encode_mask([int(move < 0) for move, _ in inside], [context for _, context in inside])
            out += varint(len(coded)) + coded
    return out


def decode_moves(data: bytes, base_q: Sequence[int]) -> list[int]:
    moved = [0] * len(base_q)
    if not data:
        return moved
    reader, contexts = Reader(data), move_contexts(base_q)
    planes = reader.varint()
    check(1 <= planes <= 254, "number of planes")
    inside, down = list(range(len(base_q))), set[int]()
    for j in range(1, planes + 1):
        here = [contexts[i] for i in inside]
        bits = decode_mask(reader.take(reader.varint()), len(inside), here)
        inside = [i for i, bit in zip(inside, bits, strict=True) if bit]
        check(bool(inside), "plane without a one")
        if j == 1:
            here = [contexts[i] for i in inside]
            bits = decode_mask(reader.take(reader.varint()), len(inside), here)
            down = {i for i, bit in zip(inside, bits, strict=True) if bit}
        for i in inside:
            moved[i] = -j if i in down else j
    check(not reader.data, "bytes after the last plane")
    return moved
