"""The second implementation's coder: docs/wire.md, "Integer logarithms" and "Coded decisions".

One decision at a time, with integers as large as they get; who decodes encodes again and compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

from tests.golden.reference_bytes import Bits, Reader, check, clip, pack, unpack, varint

Context = tuple[int, ...]
Decisions = list[tuple[Context, int]]
"""A list of the document: the context of each decision, and what was decided."""

RAW, RICE, RANS = 0, 1, 2
MOST_ONES, MOST_LANES, LARGEST_K = 4096, 4096, 31


# Integer logarithms


@cache
def log2(value: int) -> int:
    whole = value.bit_length() - 1
    mantissa, out = value << (30 - whole), whole
    for _ in range(16):
        mantissa = mantissa * mantissa // 2**30
        digit = int(mantissa >= 2**31)
        mantissa //= 1 + digit
        out = 2 * out + digit
    return out


# Blocks and probabilities


def blocks(num_weights: int, restarts: Sequence[int] = ()) -> Iterator[range]:
    for first, end in pairwise((0, *(r for r in restarts if r < num_weights), num_weights)):
        start, size = first, 64
        while start < end:
            yield range(start, min(start + size, end))
            start, size = start + size, min(2 * size, 32768)


class Model:
    """What was decided in the blocks that are over, and what that says about the next one."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Context, int]] = Counter()
        self.estimates: dict[Context, int] = {}
        self.cost = 0

    def estimate(self, digits: Context) -> int:
        if digits not in self.estimates:
            parent = self.estimate(digits[:-1]) if digits else 16384
            borrowed = 2 if len(digits) < 2 else 16
            ones = self.counts[digits, 1]
            total = self.counts[digits, 0] + ones + borrowed
            self.estimates[digits] = (32768 * ones + borrowed * parent + total // 2) // total
        return self.estimates[digits]

    def frequency(self, context: Context) -> int:
        return clip(self.estimate(context), 1, 32767)

    def end_block(self, block: Decisions) -> None:
        for context, decision in block:
            f = self.frequency(context)
            self.cost += 15 * 65536 - log2(f if decision else 32768 - f)
        for context, decision in block:
            for count in range(len(context) + 1):
                self.counts[context[:count], decision] += 1
        self.estimates = {}

    def lanes(self) -> int:
        cost = self.cost // 65536
        return min(max(cost // 6400, clip((cost - 32768) // 3072, 1, 32)), MOST_LANES)


# Rice


def encode_rice(bits: Bits) -> bytes:
    ones = [i for i, bit in enumerate(bits) if bit]
    if not ones:
        return varint(0)
    gaps = [one - before - 1 for one, before in zip(ones, [-1, *ones], strict=False)]
    lengths = [sum((gap >> k) + 1 + k for gap in gaps) for k in range(LARGEST_K + 1)]
    k = lengths.index(min(lengths))
    string = []
    for gap in gaps:
        string += [0] * (gap >> k) + [1]
    for gap in gaps:
        string += [(gap >> i) & 1 for i in range(k)]
    return varint(len(ones)) + bytes([k]) + pack(string)


def decode_rice(data: bytes) -> set[int]:
    """The places of the ones."""
    reader = Reader(data)
    count = reader.varint()
    check(count <= MOST_ONES, "number of ones")
    if count == 0:
        return set()
    k = reader.take(1)[0]
    check(k <= LARGEST_K, "K")
    string = iter(unpack(reader.data))

    def bit() -> int:
        found = next(string, None)
        check(found is not None, "the string of bits ends too early")
        return found or 0

    quotients = []
    for _ in range(count):
        quotients.append(0)
        while bit() == 0:
            quotients[-1] += 1
    places, place = set(), -1
    for quotient in quotients:
        place += (quotient << k) + sum(bit() << i for i in range(k)) + 1
        places.add(place)
    return places


# rANS


def encode_rans(lists: Sequence[Sequence[tuple[int, int]]], lanes: int) -> bytes:
    """Lists of frequency and decision."""
    states, words = [65536] * lanes, []
    for one_list in reversed(lists):
        for i, (f, decision) in reversed(list(enumerate(one_list))):
            x, lane = states[i % lanes], i % lanes
            size, first = (f, 0) if decision else (32768 - f, f)
            if x >= size << 17:
                words.append(x % 65536)
                x //= 65536
            states[lane] = 32768 * (x // size) + x % size + first
    heads = b"".join(state.to_bytes(4, "little") for state in states)
    return varint(lanes) + heads + b"".join(word.to_bytes(2, "little") for word in reversed(words))


class Rans:
    """Reads what `encode_rans` wrote."""

    def __init__(self, data: bytes) -> None:
        self.reader = Reader(data)
        lanes = self.reader.varint()
        check(1 <= lanes <= MOST_LANES, "number of lanes")
        self.states = [int.from_bytes(self.reader.take(4), "little") for _ in range(lanes)]
        check(min(self.states) >= 65536, "state of a lane")

    def read(self, frequencies: Sequence[int]) -> Bits:
        out = []
        for i, f in enumerate(frequencies):
            lane = i % len(self.states)
            quotient, rest = divmod(self.states[lane], 32768)
            decision = int(rest < f)
            x = f * quotient + rest if decision else (32768 - f) * quotient + rest - f
            if x < 65536:
                x = 65536 * x + int.from_bytes(self.reader.take(2), "little")
            self.states[lane] = x
            out.append(decision)
        return out


# Coded decisions


def encode_decisions(sequence: Sequence[Sequence[Decisions]]) -> bytes:
    """Blocks of lists."""
    model, priced, bits = Model(), [], list[int]()
    for block in sequence:
        for one_list in block:
            priced.append([(model.frequency(context), decision) for context, decision in one_list])
            bits += [decision for _, decision in one_list]
        model.end_block([pair for one_list in block for pair in one_list])
    raw, rice = pack(bits), encode_rice(bits) if sum(bits) <= MOST_ONES else None
    lanes = model.lanes()
    sizes = {RAW: len(raw), RANS: 3 * lanes + model.cost // 65536 // 8 + 3}
    if rice is not None:
        sizes[RICE] = len(rice)
    coder = min(sizes, key=lambda coder: (sizes[coder], coder))
    if coder == RANS:
        return bytes([RANS]) + encode_rans(priced, lanes)
    return bytes([coder]) + (raw if coder == RAW else rice or b"")


class Decoder:
    """Reads list after list; takes the bytes only if they are what the encoder writes."""

    def __init__(self, data: bytes) -> None:
        check(len(data) > 0 and data[0] <= RANS, "coder")
        self.data, self.coder, rest = data, data[0], data[1:]
        self.model, self.sequence, self.num_read = Model(), [list[Decisions]()], 0
        self.raw = unpack(rest) if self.coder == RAW else []
        self.ones = decode_rice(rest) if self.coder == RICE else set()
        self.rans = Rans(rest) if self.coder == RANS else None

    def read(self, contexts: Sequence[Context]) -> Bits:
        here = range(self.num_read, self.num_read + len(contexts))
        if self.rans is not None:
            bits = self.rans.read([self.model.frequency(context) for context in contexts])
        elif self.coder == RICE:
            bits = [int(place in self.ones) for place in here]
        else:
            check(here.stop <= len(self.raw), "the data end too early")
            bits = self.raw[here.start : here.stop]
        self.num_read = here.stop
        self.sequence[-1].append(list(zip(contexts, bits, strict=True)))
        return bits

    def end_block(self) -> None:
        self.model.end_block([pair for one_list in self.sequence[-1] for pair in one_list])
        self.sequence.append([])

    def finish(self) -> None:
        check(encode_decisions(self.sequence[:-1]) == self.data, "canonical form")
