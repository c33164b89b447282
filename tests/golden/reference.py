"""A second implementation of docs/wire.md, written from the document: plain Python integers and lists, no speed.

It imports nothing of pemn, so the tests that compare the two find what either of them gets wrong.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tests.golden.reference_bytes import Bits, check, clip, pack
from tests.golden.reference_codes import Context, Decisions, Decoder, blocks, encode_decisions, log2

MASK_64 = (1 << 64) - 1
WEIGHTS, START_LEVELS, DITHER = 0, 1, 2
LOWEST, HIGHEST, HALF, ONE = 66, 65470, 32768, 65536
UNIT = 1 << 24

Shape = tuple[int, ...]


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


def binary16(value: float) -> float:
    rounded: float = struct.unpack("<e", struct.pack("<e", value))[0]
    return rounded


UNIFORM_STEP: float = struct.unpack(">f", bytes.fromhex("37ddb3d7"))[0]


def normal_entry(u: int) -> float:
    return binary16(NormalDist().inv_cdf((u + 0.5) / 65536))


def values(distribution: str, key: int, count: int) -> list[float]:
    if distribution == "signed":
        return [-1.0 if negative else 1.0 for negative in signs(key, count)]
    if distribution == "uniform":
        return [binary16(float32((2 * u - 65535) * UNIFORM_STEP)) for u in integers(key, count)]
    return [normal_entry(u) for u in integers(key, count)]


def frozen_weights(
    seed: int, strategy: str, distribution: str, shapes: Sequence[Shape], scales: Sequence[float]
) -> list[float]:
    weights = []
    for (stream, period), shape, scale in zip(sources(strategy, shapes), shapes, scales, strict=True):
        generated = values(distribution, child(seed, WEIGHTS, stream), period)
        weights += [float32(generated[i % period] * scale) for i in range(math.prod(shape))]
    return weights


def masked(weights: Sequence[float], mask: Bits) -> list[float]:
    return [weight if bit else 0.0 for weight, bit in zip(weights, mask, strict=True)]


def summed(
    seed: int,
    strategy: str,
    distribution: str,
    shapes: Sequence[Shape],
    scales: Sequence[float],
    terms: Sequence[int],
    mask: Bits,
) -> list[float]:
    """Weights that are sums, for a mask of all values."""
    all_values = [(count, *shape) for count, shape in zip(terms, shapes, strict=True)]
    kept = masked(frozen_weights(seed, strategy, distribution, all_values, [1.0] * len(shapes)), mask)
    weights = []
    for shape, scale, count in zip(shapes, scales, terms, strict=True):
        size = math.prod(shape)
        for i in range(size):
            total = kept[i]
            for term in range(1, count):
                total = float32(total + kept[term * size + i])
            weights.append(float32(total * scale))
        kept = kept[count * size :]
    return weights


def weights_hash(weights: Sequence[float]) -> bytes:
    return hashlib.sha256(struct.pack(f"<{len(weights)}f", *weights)).digest()


def packed_mask(mask: Bits, sizes: Sequence[int]) -> bytes:
    out, rest = b"", mask
    for size in sizes:
        out, rest = out + pack(rest[:size]), rest[size:]
    return out


# Tied masks


def bit_sizes(sizes: Sequence[int], tie: int) -> tuple[int, ...]:
    return tuple(math.ceil(size / tie) for size in sizes)


def untied(bits: Bits, sizes: Sequence[int], tie: int) -> Bits:
    """The bits of the weights."""
    out, rest = list[int](), list(bits)
    for size, count in zip(sizes, bit_sizes(sizes, tie), strict=True):
        layer, rest = rest[:count], rest[count:]
        out += [layer[i % count] ^ (i // count) % 2 for i in range(size)]
    return out


# Public state


def start_table(lower: Sequence[int]) -> list[int]:
    """One entry if all weights start alike."""
    return [*lower, *(ONE - level for level in reversed(lower))] or [HALF]


Changes = tuple[tuple[int, int], ...]  # a schedule: from which round on, which value


def holds(schedule: Changes, round_: int) -> int:
    value = 0
    for from_round, new in schedule:
        if from_round <= round_:
            value = new
    return value


@dataclass(frozen=True)
class Rule:
    """What a spec says about the public state; sizes are numbers of bits."""

    seed: int
    sizes: tuple[int, ...]
    step: int
    eta_nums: Changes = ((1, 1),)
    eta_den: int = 1
    lower_levels: tuple[int, ...] = ()
    strides: Changes = ((1, 1),)
    window: int = 1
    keeps: Changes = ((1, 256),)

    @property
    def num_params(self) -> int:
        return sum(self.sizes)

    def start(self) -> list[int]:
        table = start_table(self.lower_levels)
        if len(table) == 1:
            return table * self.num_params
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


# Contexts


def odds(level: int) -> int:
    return (log2(2 * level + 1) - log2(131071 - 2 * level)) // 64


def half_octave(distance: int) -> int:
    return clip(distance // 512 + 16, 0, 31)


def octave(distance: int) -> int:
    return clip(distance // 1024 + 8, 0, 15)


def layer_groups(sizes: Sequence[int]) -> list[int]:
    """The group of each weight."""
    num_layers, num_groups = len(sizes), min(len(sizes), 8)
    return [layer * num_groups // num_layers for layer, size in enumerate(sizes) for _ in range(size)]


def blocks_of(groups: Sequence[int]) -> Iterator[range]:
    """Blocks that begin anew at the first multiple of 64 in a group or after its beginning."""
    starts = [i for i in range(1, len(groups)) if groups[i] != groups[i - 1]]
    return blocks(len(groups), [(start + 63) // 64 * 64 for start in starts])


# Flips


@dataclass(frozen=True)
class Draw:
    """What both ends know of a vote."""

    q: list[int]
    u: list[int]
    groups: list[int]

    def open_mask(self) -> Bits:
        return [int(u < q) for u, q in zip(self.u, self.q, strict=True)]

    def context(self, i: int) -> Context:
        at = odds(self.q[i])
        return half_octave(odds(self.u[i]) - at), octave(at), self.groups[i]


def draw_of(rule: Rule, k: Sequence[int], round_: int, slot: int) -> Draw:
    return Draw(rule.q(k), rule.dither(round_, slot), layer_groups(rule.sizes))


def flip_mask(p: Sequence[int], draw: Draw) -> Bits:
    return [int(u < p_i) ^ o for u, p_i, o in zip(draw.u, p, draw.open_mask(), strict=True)]


def encode_mask(mask: Bits, contexts: Sequence[Context]) -> bytes:
    """One list a block, one decision a weight; the last digit of its context is its group."""
    groups = [context[-1] for context in contexts]
    return encode_decisions([[[(contexts[i], mask[i]) for i in block]] for block in blocks_of(groups)])


def decode_mask(data: bytes, contexts: Sequence[Context]) -> Bits:
    decoder, mask = Decoder(data), list[int]()
    for block in blocks_of([context[-1] for context in contexts]):
        mask += decoder.read([contexts[i] for i in block])
        decoder.end_block()
    decoder.finish()
    return mask


def encode_flips(flips: Bits, draw: Draw) -> bytes:
    return encode_mask(flips, [draw.context(i) for i in range(len(flips))])


def decode_flips(data: bytes, draw: Draw) -> Bits:
    return decode_mask(data, [draw.context(i) for i in range(len(draw.q))])


def votes_of(flips: Bits, draw: Draw) -> list[int]:
    return [flip * (-1 if o else 1) for flip, o in zip(flips, draw.open_mask(), strict=True)]


def flips_hash(flips: Bits, state_hash: bytes, slot: int) -> bytes:
    told = b"pemn flips" + state_hash + struct.pack("<I", slot) + pack(flips)
    return hashlib.sha256(told).digest()[:8]


# Tally


def start_p_hat(rule: Rule) -> list[int]:
    return [256 * level for level in rule.start()]


def learn(rule: Rule, r: int, p_hat: Sequence[int], votes: Sequence[Sequence[int]]) -> list[int]:
    tally, eta_num = [sum(column) for column in zip(*votes, strict=True)], holds(rule.eta_nums, r)
    return [
        clip(p + (eta_num * t * UNIT) // (rule.eta_den * len(votes)), 0, UNIT)
        for p, t in zip(p_hat, tally, strict=True)
    ]


def forget(rule: Rule, r: int, p_hat: Sequence[int], q: Sequence[int]) -> list[int]:
    keep = holds(rule.keeps, r)
    return [256 * q_i + (p - 256 * q_i) * keep // 256 for p, q_i in zip(p_hat, q, strict=True)]


def settle(rule: Rule, r: int, p_hat: Sequence[int], k: Sequence[int]) -> list[int]:
    stride = holds(rule.strides, r)
    width = 256 * rule.step * stride
    return [
        clip(k_i + stride * ((2 * (p - 256 * q) + width) // (2 * width)), -127, 127)
        for p, q, k_i in zip(p_hat, rule.q(k), k, strict=True)
    ]


def average(rule: Rule, r: int, mean: Sequence[int], p_hat: Sequence[int]) -> list[int]:
    return [m + (p - m) // min(rule.window, 1 + r // 4) for m, p in zip(mean, p_hat, strict=True)]


def agree(rule: Rule, r: int, p_hat: Sequence[int], k: Sequence[int]) -> list[int]:
    stride, agreed = holds(rule.strides, r), []
    for p, k_i, q_start in zip(p_hat, k, rule.start(), strict=True):
        strides = ((32768 - q_start) // rule.step - k_i) // stride
        strides = max(strides + 1, 0) if p > 1 << 23 else min(strides, 0)
        agreed.append(clip(k_i + stride * strides, -127, 127))
    return agreed


# Moves

MOVES, DOWN, TWO, MORE, BITS = range(5)


class Base:
    """What the receiver of moves has."""

    def __init__(self, rule: Rule, k: Sequence[int]) -> None:
        self.k = list(k)
        self._q = rule.q(k)
        self.groups = layer_groups(rule.sizes)

    def context(self, kind: int, i: int, bit: int = 0) -> Context:
        second = bit if kind == BITS else half_octave(odds(self._q[i]))
        sign = 0 if self.k[i] < 0 else 2 if self.k[i] > 0 else 1
        return kind, second, sign, self.groups[i]


def _kind(least: int) -> int:
    return TWO if least == 2 else MORE


def _lists_of_moves(base: Base, moved: Sequence[int], block: range) -> list[Decisions]:
    inside = [i for i in block if moved[i] != 0]
    lists = [
        [(base.context(MOVES, i), int(moved[i] != 0)) for i in block],
        [(base.context(DOWN, i), int(moved[i] < 0)) for i in inside],
    ]
    for least in range(2, 8):
        lists.append([(base.context(_kind(least), i), int(abs(moved[i]) >= least)) for i in inside])
        inside = [i for i in inside if abs(moved[i]) >= least]
    for bit in range(7, -1, -1):
        lists.append([(base.context(BITS, i, bit), (abs(moved[i]) - 7) >> bit & 1) for i in inside])
    return lists


def encode_moves(base: Base, k: Sequence[int]) -> bytes:
    moved = [after - before for after, before in zip(k, base.k, strict=True)]
    if not any(moved):
        return b""
    return encode_decisions([_lists_of_moves(base, moved, block) for block in blocks_of(base.groups)])


def decode_moves(base: Base, data: bytes) -> list[int]:
    """The new k."""
    if not data:
        return base.k
    decoder, moved = Decoder(data), [0] * len(base.k)

    def ones(kind: int, asked: Sequence[int], bit: int = 0) -> list[int]:
        decisions = decoder.read([base.context(kind, i, bit) for i in asked])
        return [i for i, decision in zip(asked, decisions, strict=True) if decision]

    for block in blocks_of(base.groups):
        inside = ones(MOVES, block)
        down = set(ones(DOWN, inside))
        for i in inside:
            moved[i] = 1
        for least in range(2, 8):
            inside = ones(_kind(least), inside)
            for i in inside:
                moved[i] = least
        for bit in range(7, -1, -1):
            for i in ones(BITS, inside, bit):
                moved[i] += 1 << bit
        for i in down:
            moved[i] = -moved[i]
        decoder.end_block()
    k = [before + move for before, move in zip(base.k, moved, strict=True)]
    check(all(-127 <= k_i <= 127 for k_i in k), "range of k")
    check(any(moved), "moves of nothing")
    decoder.finish()
    return k


# Released masks


def start_edges(lower: Sequence[int]) -> list[int]:
    table = start_table(lower)
    found = [half_octave(odds(level)) for level in table]
    return [ONE // len(table) * j for j in range(1, len(table)) if found[j] != found[j - 1]]


def release_contexts(sizes: Sequence[int], seed: int, edges: Sequence[int]) -> list[Context]:
    drawn = integers(child(seed, START_LEVELS), sum(sizes))
    return [
        (sum(edge <= u for edge in edges), group) for u, group in zip(drawn, layer_groups(sizes), strict=True)
    ]
