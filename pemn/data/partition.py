"""Which client trains on which images: a pure function of the labels, the number of clients and the run's seed.

Every client computes the whole partition for itself and keeps its own shard, so two machines must not differ by one
image. All choices are integers from `pemn.generator`. The one place that needs real numbers, the Dirichlet shares,
computes them with Python's `decimal`, whose +, -, *, /, `ln`, `exp` and `sqrt` are defined to be correctly rounded:
the same digits on every machine and in every version, which no `libm` promises of a float's logarithm.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from heapq import heapify, heapreplace
from itertools import accumulate, count, pairwise

import numpy as np
from numpy.typing import NDArray

from pemn.errors import DataError, LocalError
from pemn.generator import Purpose, child, permutation, word
from pemn.partition import Partition

_DIGITS = 20  # of the shares: a cut through a million images is off by at most 1e-14 of an image

# What the words below `Purpose.PARTITION` are for.
_IMAGE_ORDER, _CLASS_ORDER, _ORDER_IN_CLASS, _SHARES = range(4)


def shards(
    partition: Partition, labels: NDArray[np.int64], num_slots: int, seed: int
) -> list[NDArray[np.int64]]:
    """Returns the images of every client.

    - `own`: every client has data of its own, all of which are its share.
    - `iid`: a random order of all images, cut in parts whose sizes differ by at most 1.
    - `dirichlet`: for each class, shares of the clients are drawn from Dirichlet(alpha, ..., alpha), and the class's
      images, in random order, are cut at the running sums of the shares, rounded down. About 0.1 ms a client and
      class, of which a spec asks for at most `MAX_GAMMA_VARIATES` (docs/wire.md, "Limits").
    - `classes`: the classes, in random order, are dealt out round and round, C to every client; a class's images, in
      random order, are cut in equal parts for the clients that hold it. Every class has a holder if C times
      `num_slots` is at least the number of classes; images of a class without a holder are left out.

    A client that would get nothing takes an image of the client that has most. What all but `dirichlet` cost depends
    on the images, hardly on the number of clients.

    Args:
        partition: How to deal.
        labels: int64 [N], each >= 0.
        num_slots: Number of clients, >= 1.
        seed: The run's seed, 0 .. 2^64-1.

    Returns:
        For every slot the indices of its images, int64 [n], n >= 1, ascending; no index is in two of them, unless
        the partition is `own`.

    Raises:
        DataError: If there are fewer images than clients, or fewer classes than a client is to have.

    Source: Dirichlet by class: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks",
    ICML 2019. Classes: after McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017.
    """
    if labels.dtype != np.int64 or labels.ndim != 1 or labels.min(initial=0) < 0:
        raise LocalError("labels", got=f"{labels.dtype} {list(labels.shape)}", wanted="int64 [N], each >= 0")
    if num_slots < 1:
        raise LocalError("number of clients", got=num_slots, wanted=">= 1")
    if partition.kind == "own" and len(labels):
        return [np.arange(len(labels))] * num_slots
    if len(labels) < num_slots:
        raise DataError(
            "too few images for the clients", got=f"{len(labels)} images", wanted=f"at least {num_slots}"
        )
    key = child(seed, Purpose.PARTITION)
    if partition.kind == "iid":
        owners = np.empty(len(labels), np.int64)
        order = permutation(child(key, _IMAGE_ORDER), len(labels))
        owners[order] = np.repeat(np.arange(num_slots), _equal_parts(len(labels), num_slots))
    elif partition.kind == "dirichlet":
        owners = _by_dirichlet(labels, num_slots, key, partition.alpha)
    elif partition.kind == "classes":
        owners = _by_classes(labels, num_slots, key, partition.num_classes)
    else:
        raise LocalError("kind of partition", got=partition.kind, wanted="own, iid, dirichlet or classes")
    _fill_empty(owners, num_slots)
    by_owner = np.argsort(owners, kind="stable")
    ends = np.searchsorted(owners[by_owner], np.arange(num_slots + 1))  # nobody's images, -1, come first
    return [by_owner[begin:end] for begin, end in pairwise(ends)]


def _equal_parts(total: int, num_parts: int) -> list[int]:
    """Returns sizes that differ by at most 1."""
    size, rest = divmod(total, num_parts)
    return [size + 1] * rest + [size] * (num_parts - rest)


def _members(labels: NDArray[np.int64], label: int, key: int) -> NDArray[np.int64]:
    """Returns the images of a class in random order."""
    found = np.flatnonzero(labels == label)
    return found[permutation(child(key, _ORDER_IN_CLASS, label), len(found))]


def _by_classes(labels: NDArray[np.int64], num_slots: int, key: int, per_slot: int) -> NDArray[np.int64]:
    """Returns the slot of every image, int64 [N], or -1 where nobody holds its class."""
    classes = np.unique(labels)
    if per_slot > len(classes):
        raise DataError("classes of a client", got=per_slot, wanted=f"at most {len(classes)}")
    owners = np.full(len(labels), -1, np.int64)
    for place, which in enumerate(permutation(child(key, _CLASS_ORDER), len(classes)).tolist()):
        members = _members(labels, int(classes[which]), key)
        # Slot s holds the places s * C .. s * C + C - 1, counted round and round, so this one whenever its turn
        # comes. Who comes after the last image gets none.
        turns = range(place, num_slots * per_slot, len(classes))[: len(members)]
        if turns:
            holders = np.array(turns) // per_slot
            owners[members] = np.repeat(holders, _equal_parts(len(members), len(holders)))
    return owners


def _by_dirichlet(labels: NDArray[np.int64], num_slots: int, key: int, alpha: float) -> NDArray[np.int64]:
    """Returns the slot of every image, int64 [N]."""
    owners = np.empty(len(labels), np.int64)
    context = decimal.Context(prec=_DIGITS, rounding=decimal.ROUND_HALF_EVEN)
    with decimal.localcontext(context):
        concentration = decimal.Decimal(repr(alpha))
        for label in np.unique(labels).tolist():
            members = _members(labels, label, key)
            logs = [
                _log_gamma_variate(child(key, _SHARES, label, slot), concentration)
                for slot in range(num_slots)
            ]
            # A small alpha gives variates below any float: they are compared as logarithms, the largest being 0.
            largest = max(logs)
            sums = list(accumulate((value - largest).exp() for value in logs))
            cuts = [int(len(members) * value / sums[-1]) for value in sums[:-1]]
            owners[members] = np.repeat(np.arange(num_slots), np.diff([0, *cuts, len(members)]))
    return owners


def _log_gamma_variate(key: int, alpha: decimal.Decimal) -> decimal.Decimal:
    """Returns the logarithm of a draw from Gamma(alpha, 1), made of the words of the stream `key`.

    Source: G. Marsaglia and W. W. Tsang, "A simple method for generating gamma variables", ACM Transactions on
    Mathematical Software 26(3), 2000; below 1 by their Gamma(alpha) = Gamma(alpha + 1) * U^(1 / alpha).
    """
    uniforms = _uniforms(key)
    boost = decimal.Decimal(0)
    if alpha < 1:
        boost = next(uniforms).ln() / alpha
        alpha += 1
    d = alpha - decimal.Decimal(1) / 3
    c = 1 / (9 * d).sqrt()
    while True:
        x = _normal(uniforms)
        root = 1 + c * x
        if root <= 0:
            continue
        log_v = 3 * root.ln()
        # Not root**3: a power is the one operation that `decimal` does not promise to round correctly.
        if next(uniforms).ln() < x * x / 2 + d * (1 - root * root * root + log_v):
            return d.ln() + log_v + boost


def _normal(uniforms: Iterator[decimal.Decimal]) -> decimal.Decimal:
    """Returns a draw from the standard normal distribution, by Marsaglia's polar method (needs no cosine)."""
    while True:
        a, b = 2 * next(uniforms) - 1, 2 * next(uniforms) - 1
        square = a * a + b * b
        if square < 1:
            return a * (-2 * square.ln() / square).sqrt()


def _uniforms(key: int) -> Iterator[decimal.Decimal]:
    """Yields numbers strictly between 0 and 1: the middles of 2^53 equal steps."""
    for index in count():
        yield decimal.Decimal(2 * (word(key, index) >> 11) + 1) / (1 << 54)


def _fill_empty(owners: NDArray[np.int64], num_slots: int) -> None:
    """Gives every slot without images the last image of the slot that has most, lowest slot first."""
    sizes = np.bincount(owners[owners >= 0], minlength=num_slots)
    by_owner = np.argsort(owners, kind="stable")
    ends = np.searchsorted(owners[by_owner], np.arange(num_slots), side="right")
    donors = [(-size, slot) for slot, size in enumerate(sizes.tolist())]
    heapify(donors)
    for slot in np.flatnonzero(sizes == 0).tolist():
        # Where a slot is empty, every image has a slot, and there is one for each of them: so a donor has at least
        # two, and no slot gives away what it was given.
        less, donor = donors[0]
        heapreplace(donors, (less + 1, donor))
        ends[donor] -= 1
        owners[by_owner[ends[donor]]] = slot
