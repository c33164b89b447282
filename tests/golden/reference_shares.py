"""The second implementation's shares of the data: docs/wire.md, "Shares of the data"."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from decimal import Decimal
from itertools import count

from tests.golden.reference import child, permutation, word

PARTITION = 3


def equal_parts(elements: list[int], num_parts: int) -> list[list[int]]:
    size, longer = divmod(len(elements), num_parts)
    parts, rest = [], elements
    for i in range(num_parts):
        length = size + (i < longer)
        parts.append(rest[:length])
        rest = rest[length:]
    return parts


def rearranged(elements: list[int], key: int) -> list[int]:
    return [elements[old] for old in permutation(key, len(elements))]


def shares(partition: str, labels: list[int], num_slots: int, seed: int) -> list[list[int]]:
    """The images of every slot, ascending."""
    p = child(seed, PARTITION)
    kind, _, number = partition.partition(":")
    classes = sorted(set(labels))
    held: list[list[int]] = [[] for _ in range(num_slots)]

    def in_order(label: int) -> list[int]:
        members = [i for i, other in enumerate(labels) if other == label]
        return rearranged(members, child(p, 2, label))

    if kind == "iid":
        held = equal_parts(rearranged(list(range(len(labels))), child(p, 0)), num_slots)
    elif kind == "classes":
        c, m = int(number), len(classes)
        for t, label in enumerate(rearranged(classes, child(p, 1))):
            holders = [s for s in range(num_slots) if (t - s * c) % m < c]
            if holders:
                for s, part in zip(holders, equal_parts(in_order(label), len(holders)), strict=True):
                    held[s] += part
    else:
        with decimal.localcontext(decimal.Context(prec=20, rounding=decimal.ROUND_HALF_EVEN)):
            for label in classes:
                members = in_order(label)
                logs = [
                    log_gamma(child(p, 3, label, s), Decimal(repr(float(number)))) for s in range(num_slots)
                ]
                g = [(log - max(logs)).exp() for log in logs]
                total, sums = Decimal(0), []
                for value in g:
                    total += value
                    sums.append(total)
                cuts = [0, *(int(len(members) * value / total) for value in sums[:-1]), len(members)]
                for s in range(num_slots):
                    held[s] += members[cuts[s] : cuts[s + 1]]
    for s in range(num_slots):
        if not held[s]:
            sizes = [len(images) for images in held]
            donor = held[sizes.index(max(sizes))]
            held[s].append(max(donor))
            donor.remove(max(donor))
    return [sorted(images) for images in held]


def log_gamma(key: int, a: Decimal) -> Decimal:
    draws: Iterator[Decimal] = (Decimal(2 * (word(key, j) >> 11) + 1) / (1 << 54) for j in count())
    boost = Decimal(0)
    if a < 1:
        boost = next(draws).ln() / a
        a = a + 1
    d = a - Decimal(1) / 3
    c = 1 / (9 * d).sqrt()
    while True:
        e = Decimal(1)
        while e >= 1:
            first = 2 * next(draws) - 1
            second = 2 * next(draws) - 1
            e = first * first + second * second
        x = first * (-2 * e.ln() / e).sqrt()
        t = 1 + c * x
        if t <= 0:
            continue
        v = 3 * t.ln()
        if next(draws).ln() < x * x / 2 + d * (1 - t * t * t + v):
            return d.ln() + v + boost
