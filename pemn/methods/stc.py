"""Sparse ternary compression of federated averaging, both ways.

A message changes only the share of the weights that has changed most, all by the same amount, up or down; what is not
told is kept and told later, by the client and by the server alike.

The public values are the weights that clients have, float32 [n]. Private are the server's residual, float32 [n], and
the coded changes of the last rounds, with which those who missed some catch up. A client keeps its residual,
float32 [n]. Trainers are given weights and return such.

Source: Sattler et al., "Robust and Communication-Efficient Federated Learning from Non-IID Data", IEEE TNNLS 2020,
Algorithms 1 and 2. Positions are coded by our own coder, near their entropy, where theirs takes Golomb's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Decisions, Reader, encode
from pemn.errors import LocalError, MalformedFrame
from pemn.federation.groups import LayerGroups
from pemn.federation.public import PublicState
from pemn.methods.fedavg import Mean
from pemn.methods.method import Private, Trained, Trainer, trained_like
from pemn.rebuild import frozen_weights
from pemn.wire.payload import Payload
from pemn.wire.protocols import StcProtocol
from pemn.wire.spec import Spec

_HEAD = struct.Struct("<II")
_MAX_CHANGES = 64
"""Rounds whose changes are kept; who has missed more gets all weights."""

_CHANGES, _WEIGHTS = b"c", b"w"


@dataclass(frozen=True)
class StcMethod:
    """A run of the method.

    Attributes:
        spec: The run.
        protocol: How the clients train, and how sparse messages are.
    """

    spec: Spec
    protocol: StcProtocol

    @property
    def complete(self) -> bool:
        """See `Method`."""
        return False

    def start(self) -> tuple[PublicState, Private]:
        """See `Method`."""
        weights = frozen_weights(self.spec.model)
        return PublicState(0, weights), (np.zeros_like(weights), np.empty(0, np.uint8))

    def encode_change(self, base: PublicState, now: PublicState, private: Private) -> bytes:
        """See `Method`; the changes of all rounds since, or all weights where they are fewer bytes."""
        if base.round == now.round:
            return b""
        changes = _changes(private[1])
        missed = b"".join(changes.get(round_, b"") for round_ in range(base.round + 1, now.round + 1))
        known = all(round_ in changes for round_ in range(base.round + 1, now.round + 1))
        if known and len(missed) < 4 * now.values.size:
            return _CHANGES + missed
        return _WEIGHTS + now.values.astype("<f4", copy=False).tobytes()

    def change_size(self, base: PublicState, now: PublicState, private: Private) -> int:
        """See `Method`; it is coded."""
        return len(self.encode_change(base, now, private))

    def decode_change(self, base: PublicState, change: bytes) -> NDArray[np.float32]:
        """See `Method`."""
        kind, data = change[:1], change[1:]
        if not change:
            return base.values
        if kind == _WEIGHTS:
            if len(data) != 4 * base.values.size:
                raise MalformedFrame("length of weights", got=len(data), wanted=4 * base.values.size)
            return np.frombuffer(data, "<f4").astype(np.float32)
        if kind != _CHANGES or not data:
            raise MalformedFrame("kind of a change", got=kind.hex())
        values = base.values
        for number, (round_, frame) in enumerate(_frames(data), 1):
            if round_ != base.round + number:
                raise MalformedFrame("round of a change", got=round_, wanted=base.round + number)
            values = values + self._read(frame[_HEAD.size :])
        return values

    def vote(self, public: PublicState, slot: int, trainer: Trainer, memory: NDArray[Any] | None) -> Trained:
        """See `Method`."""
        trained, metrics = trained_like(public.values, trainer, public.round + 1)
        owed = trained - public.values
        if memory is not None:
            owed += memory
        told, coded = self._sparse(owed)
        return Trained(Payload(told, lambda: coded), b"", metrics, owed - told)

    def read_vote(self, base: PublicState, slot: int, vote: bytes, vote_hash: bytes) -> NDArray[np.float32]:
        """See `Method`."""
        if vote_hash:
            raise MalformedFrame("hash of a vote that needs none")
        return self._read(vote)

    def tally(self) -> Mean:
        """See `Method`."""
        return Mean()

    def commit(self, public: PublicState, private: Private, votes: Mean) -> tuple[PublicState, Private]:
        """See `Method`."""
        mean, round_ = votes.mean(), public.round + 1
        residual, past = private
        owed = residual if mean is None else residual + mean
        told, coded = self._sparse(owed)
        kept = {number: frame for number, frame in _changes(past).items() if number > round_ - _MAX_CHANGES}
        kept[round_] = _HEAD.pack(round_, len(coded)) + coded
        history = np.frombuffer(b"".join(kept[number] for number in sorted(kept)), np.uint8)
        return PublicState(round_, public.values + told), (owed - told, history)

    def released(self, public: PublicState, private: Private) -> PublicState:
        """See `Method`; what is shared."""
        return public

    def check_private(self, private: Private) -> None:
        """See `Method`.

        Raises:
            ValueError: If a residual is no number, or the changes are none.
        """
        if not np.isfinite(private[0]).all():
            raise ValueError("residual")
        for frame in _changes(private[1]).values():
            self._read(frame[_HEAD.size :])

    def mask(self, public: PublicState) -> None:
        """See `Method`; its weights are ordinary ones."""

    def weights(self, public: PublicState) -> NDArray[np.float32]:
        """See `Method`."""
        return public.values

    @cached_property
    def _groups(self) -> LayerGroups:
        return LayerGroups.of(self.spec.model.sizes)

    def _sparse(self, owed: NDArray[np.float32]) -> tuple[NDArray[np.float32], bytes]:
        """Returns what of a change is told, float32 [n], and the same coded: the largest, by their mean size."""
        magnitude = np.abs(owed)
        count = max(1, min(round(self.protocol.share * owed.size), owed.size))
        chosen = np.zeros(owed.size, np.bool_)
        chosen[np.argpartition(magnitude, owed.size - count)[owed.size - count :]] = True
        size = np.float32(magnitude[chosen].mean(dtype=np.float64))
        if not np.isfinite(size):
            raise LocalError("weights that are not finite")
        down = np.signbit(owed)

        def decide(start: int, stop: int) -> list[Decisions]:
            inside, contexts = chosen[start:stop], self._groups.ids(start, stop)
            signs = down[start:stop][inside]
            return [(inside, contexts), (signs, contexts[inside] + np.uint16(self._groups.count))]

        coded = encode(owed.size, decide, (2, self._groups.count), self._groups.restarts)
        told = np.where(chosen, np.where(down, -size, size), np.float32(0))
        return told, struct.pack("<f", size) + coded

    def _read(self, data: bytes) -> NDArray[np.float32]:
        """Reads what `_sparse` coded."""
        if len(data) <= _SIZE_BYTES:
            raise MalformedFrame("sparse change", got=f"{len(data)} bytes")
        size = np.float32(struct.unpack_from("<f", data)[0])
        if not np.isfinite(size) or size < 0:
            raise MalformedFrame("size of a sparse change", got=size)
        told, groups = np.zeros(self.spec.model.num_params, np.float32), self._groups
        reader = Reader(data[_SIZE_BYTES:], (2, groups.count))
        for start, stop in groups.blocks():
            contexts = groups.ids(start, stop)
            which = np.flatnonzero(reader.read(contexts))
            down = reader.read(contexts[which] + np.uint16(groups.count))
            told[start:stop][which] = np.where(down, -size, size)
            reader.end_block()
        reader.finish()
        return told


_SIZE_BYTES = 4


def _changes(history: NDArray[np.uint8]) -> dict[int, bytes]:
    """Returns the coded changes that a server has kept, each with its head, by round."""
    return dict(_frames(history.tobytes()))


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields each round's number and frame.

    Raises:
        MalformedFrame: If a frame is cut off.
    """
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise MalformedFrame("changes of several rounds end too early")
        round_, length = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        if end > len(data):
            raise MalformedFrame("changes of several rounds end too early")
        yield round_, data[at:end]
        at = end
