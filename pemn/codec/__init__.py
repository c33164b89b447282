"""Binary decisions <-> bytes, near the entropy bound.

All that travels is a sequence of decisions, zeros and ones, each with a *context*: a number that both ends know
before, and that says which decisions are expected to be alike. The decisions come in the blocks of weights that they
are about. A coded sequence begins with a byte that names the coder; the encoder takes the one that is smallest by
an integer estimate, and the decoder accepts only what the encoder would have written, so that no two byte strings
mean the same.

    >>> import numpy as np
    >>> kept = np.arange(1000) % 7 == 0                    # one decision a weight
    >>> kinds = (np.arange(1000) // 500).astype(np.uint16)  # its context, here one of two
    >>> data = encode(1000, lambda start, stop: [(kept[start:stop], kinds[start:stop])], shape=(2,))
    >>> reader, parts = Reader(data, shape=(2,)), []
    >>> for start, stop in blocks(1000):
    ...     parts.append(reader.read(kinds[start:stop]))
    ...     reader.end_block()
    >>> reader.finish()
    >>> bool((np.concatenate(parts) == kept).all())
    True

Source: docs/wire.md, "Coded decisions".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pemn.codec import rans, rice
from pemn.codec.bits import pack
from pemn.codec.model import ContextModel, blocks
from pemn.errors import LocalError, MalformedFrame

__all__ = ["Coder", "Decider", "Decisions", "Reader", "blocks", "encode", "size"]

Decisions = tuple[NDArray[np.bool_], NDArray[np.uint16]]
"""Some decisions in turn and the context of each: bool [m], uint16 [m]."""

Decider = Callable[[int, int], Sequence[Decisions]]
"""Gives all decisions about the weights start .. stop-1; is asked for each block more than once."""


class Coder(IntEnum):
    """First byte of a coded sequence."""

    RAW = 0
    RICE = 1
    RANS = 2


class _Sequence:
    """What is known of a sequence up to here; from it both ends choose the same coder."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.model = ContextModel(shape)
        self.size = 0
        self._num_ones = 0
        self._ones: list[NDArray[np.int64]] = []

    def count(self, decisions: NDArray[np.bool_], contexts: NDArray[np.uint16]) -> None:
        self.model.count(decisions, contexts)
        if self._num_ones <= rice.MAX_ONES:
            ones = np.flatnonzero(decisions)
            if ones.size:
                self._num_ones += ones.size
                self._ones.append(ones + self.size)
        self.size += decisions.size

    @cached_property
    def rice(self) -> bytes | None:
        """The whole sequence as a Rice code, if it has few ones."""
        if self._num_ones > rice.MAX_ONES:
            return None
        return rice.encode(np.concatenate([*self._ones, np.empty(0, np.int64)]))

    def sizes(self) -> dict[Coder, int]:
        """Returns the bytes of the whole sequence with each coder that can code it; those of rANS are an estimate."""
        sizes = {
            Coder.RAW: -(-self.size // 8),
            Coder.RANS: rans.LANE_BYTES * rans.num_lanes(self.model.cost) + self.model.cost // 8 + 3,
        }
        if self.rice is not None:
            sizes[Coder.RICE] = len(self.rice)
        return sizes

    def choose(self) -> tuple[Coder, int]:
        """Returns the coder of the whole sequence with the fewest bytes, of several the first, and rANS's lanes."""
        sizes = self.sizes()
        return min(sizes, key=lambda coder: (sizes[coder], coder)), rans.num_lanes(self.model.cost)


def encode(num_weights: int, decide: Decider, shape: tuple[int, ...], restarts: Sequence[int] = ()) -> bytes:
    """Codes a sequence of decisions as shortly as any of the coders can.

    Args:
        num_weights: n.
        decide: The decisions of each block, in the parts in which `Reader.read` will be asked for them.
        shape: Of the contexts (`pemn.codec.model.ContextModel`).
        restarts: Where blocks begin anew (`pemn.codec.model.blocks`).

    Raises:
        LocalError: If decisions and contexts do not fit each other or the shape.
    """
    sequence, tables, bounds = _Sequence(shape), [], list(blocks(num_weights, restarts))
    for start, stop in bounds:
        tables.append(sequence.model.table)
        for decisions, contexts in _checked(decide(start, stop), sequence.model):
            sequence.count(decisions, contexts)
        sequence.model.adapt()
    coder, lanes = sequence.choose()
    if coder == Coder.RICE:
        return bytes([coder]) + (sequence.rice or b"")
    if coder == Coder.RAW:
        parts = [part for block in bounds for part, _ in decide(*block)]
        return bytes([coder]) + pack(np.concatenate([*parts, np.empty(0, np.bool_)])).tobytes()
    out = rans.Encoder(lanes)
    for (start, stop), table in zip(reversed(bounds), reversed(tables), strict=True):
        for decisions, contexts in reversed(_checked(decide(start, stop), sequence.model)):
            out.put(decisions, contexts, table)
    return bytes([coder]) + out.to_bytes()


def size(num_weights: int, decide: Decider, shape: tuple[int, ...], restarts: Sequence[int] = ()) -> int:
    """Returns about how many bytes `encode` gives, which takes the same arguments: exact but for rANS.

    That needs a few bytes more than the ideal code for each of its lanes, which are counted in.
    """
    sequence = _Sequence(shape)
    for start, stop in blocks(num_weights, restarts):
        for decisions, contexts in _checked(decide(start, stop), sequence.model):
            sequence.count(decisions, contexts)
        sequence.model.adapt()
    return 1 + min(sequence.sizes().values())


def _checked(parts: Sequence[Decisions], model: ContextModel) -> Sequence[Decisions]:
    """Returns what a caller has decided, if it can be coded."""
    for decisions, contexts in parts:
        if decisions.dtype != np.bool_ or decisions.shape != contexts.shape:
            got = f"{decisions.dtype} {decisions.shape}, {contexts.shape}"
            raise LocalError("decisions and their contexts", got=got, wanted="bool [m], uint16 [m]")
        model.check(contexts)
    return parts


class Reader:
    """Gives back what `encode` coded, block by block.

    Args:
        data: The coded sequence.
        shape: Of the contexts, as the encoder had it.

    Raises:
        MalformedFrame: If there is no such coder, or its head is wrong.
    """

    def __init__(self, data: bytes, shape: tuple[int, ...]) -> None:
        if not data or data[0] not in tuple(Coder):
            raise MalformedFrame("coder of a mask", got=data[0] if data else "no bytes")
        self._data, self._coder = memoryview(data)[1:], Coder(data[0])
        self._sequence = _Sequence(shape)
        self._rans = rans.Decoder(self._data) if self._coder == Coder.RANS else None
        self._ones = rice.decode(self._data) if self._coder == Coder.RICE else np.empty(0, np.int64)

    def read(self, contexts: NDArray[np.uint16]) -> NDArray[np.bool_]:
        """Returns the next decisions of the block.

        Args:
            contexts: As the encoder had them, uint16 [m].

        Returns:
            bool [m].

        Raises:
            MalformedFrame: If the data end too early.
            LocalError: If a context is none of the shape's.
        """
        self._sequence.model.check(contexts)
        start = self._sequence.size
        stop = start + contexts.size
        if self._rans is not None:
            decisions = self._rans.read(contexts, self._sequence.model.table)
        elif self._coder == Coder.RICE:
            decisions = np.zeros(contexts.size, np.bool_)
            first, last = np.searchsorted(self._ones, (start, stop))
            decisions[self._ones[first:last] - start] = True
        else:
            if stop > 8 * len(self._data):
                raise MalformedFrame("coded mask ends too early")
            raw = np.frombuffer(self._data, np.uint8)[start // 8 : -(-stop // 8)]
            decisions = np.unpackbits(raw, bitorder="little")[start % 8 :][: contexts.size].view(np.bool_)
        self._sequence.count(decisions, contexts)
        return decisions

    def end_block(self) -> None:
        """Ends a block of weights: what it held now counts in the probabilities.

        Raises:
            MalformedFrame: If so far more lanes would have been taken than there are; a bomb ends here.
        """
        self._sequence.model.adapt()
        if self._rans is not None and rans.num_lanes(self._sequence.model.cost) > self._rans.lanes:
            raise MalformedFrame("coded mask: lanes", got=self._rans.lanes, wanted="more")

    def finish(self) -> None:
        """Checks that the data are what the encoder writes for these decisions.

        Raises:
            MalformedFrame: If they are not.
        """
        coder, lanes = self._sequence.choose()
        canonical = coder == self._coder
        if self._rans is not None:
            self._rans.finish()
            canonical = canonical and self._rans.lanes == lanes
        elif self._coder == Coder.RICE:
            canonical = canonical and self._sequence.rice == bytes(self._data)
        else:
            last = self._data[-1] if self._data else 0
            filled = self._sequence.size % 8 == 0 or last >> self._sequence.size % 8 == 0
            canonical = canonical and filled and len(self._data) == -(-self._sequence.size // 8)
        if not canonical:
            raise MalformedFrame("coded mask is not in canonical form")
