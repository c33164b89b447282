"""FedPM: clients train scores with drawn masks and send one mask each; the mean of the masks is the next model.

As published it sends a sampled mask up and float32 probabilities down. With `counts` the same probabilities travel as
what they are, a number of votes for each weight: votes and counts are coded against the probabilities that both ends
know. Both come to the same model, to the bit.

Without counts the public values are the probabilities, float32 [n]. With them they are uint16 [n + 1]: the votes for
each weight and, last, how many there were; before the first round the start levels in 1/65536, and 0. Nothing is
private. Trainers are given float32 probabilities and return such.

Source: Isik et al., "Sparse Random Networks for Communication-Efficient Federated Learning", ICLR 2023, Algorithm 1. As
in the authors' code a mask counts as 0.01 and 0.99, so that no weight is settled for good, and the prior of the mean is
reset every round. Adam starts afresh every round; in the authors' code it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemn.codec import Decisions, Reader, encode
from pemn.codec.bits import pack, unpack
from pemn.errors import LocalError, MalformedFrame
from pemn.federation.groups import LayerGroups
from pemn.federation.levels import HIGHEST, LOWEST, ONE, dither, start_draws, start_table
from pemn.federation.planes import GROUP, BitPlanes
from pemn.federation.public import PublicState
from pemn.mask import Mask
from pemn.methods.method import Private, Trained, Trainer, trained_like
from pemn.rebuild import rebuild
from pemn.wire.messages import Metrics
from pemn.wire.payload import Payload
from pemn.wire.protocols import FedPMProtocol
from pemn.wire.spec import Spec

_LEAST = 0.01  # what a weight that nobody has voted for has left
_MAX_CONTEXTS = 4096
_COUNT = np.dtype("<u2")
MAX_VOTES = (1 << _COUNT.itemsize * 8) - 1
"""The most votes of a round."""


class MaskTally:
    """How many masks have each weight: log2(K) bits a weight, and up to sixteen masks that wait to be counted."""

    def __init__(self, num_params: int) -> None:
        self.num_votes, self._num_params = 0, num_params
        self._planes, self._waiting = BitPlanes(-(-num_params // 8)), list[NDArray[np.uint8]]()

    def add(self, slot: int, vote: NDArray[np.uint8], metrics: Metrics) -> None:
        """Takes a packed mask; all votes are equal."""
        self._waiting.append(vote)
        self.num_votes += 1
        if len(self._waiting) == GROUP:
            self._count()

    def counts(self) -> NDArray[np.int32]:
        """Returns for each weight how many masks have it: int32 [n]."""
        self._count()
        return self._planes.integers(0, self._num_params)

    def _count(self) -> None:
        masks, self._waiting = self._waiting, []
        if masks:
            self._planes.add(len(masks), lambda start, stop: [mask[start:stop] for mask in masks])


@dataclass(frozen=True)
class FedPMMethod:
    """A run of the method.

    Attributes:
        spec: The run.
        protocol: Where the probabilities begin.
    """

    spec: Spec
    protocol: FedPMProtocol

    @property
    def counts(self) -> bool:
        """Whether counts travel in the place of probabilities."""
        return self.spec.method == "fedpm-counts"

    @property
    def complete(self) -> bool:
        """See `Method`; counts are coded against what the receiver has."""
        return not self.counts

    def start(self) -> tuple[PublicState, Private]:
        """See `Method`."""
        draws = start_draws(self.spec.model.seed, 0, self._num_params)
        levels = start_table(self.protocol.start_levels).take(draws)
        if self.counts:
            return PublicState(0, np.append(levels, np.uint16(0))), ()
        return PublicState(0, _of_levels(levels)), ()

    def encode_change(self, base: PublicState, now: PublicState, private: Private) -> bytes:
        """See `Method`."""
        if now.round == base.round or np.array_equal(
            now.values, base.values
        ):  # so too if nobody has voted yet
            return b""
        if not self.counts:
            return now.values.astype("<f4", copy=False).tobytes()
        counts, num_votes = now.values[:-1], int(now.values[-1])
        theta, planes = self.probabilities(base), _planes_of(num_votes)

        def decide(start: int, stop: int) -> list[Decisions]:
            return list(
                _count_decisions(counts[start:stop], self._buckets(theta[start:stop], planes), planes)
            )

        shape = (self._num_buckets(planes), (1 << planes) - 1)
        coded = encode(self._num_params, decide, shape, self._groups.restarts)
        return num_votes.to_bytes(_COUNT.itemsize, "little") + coded

    def change_size(self, base: PublicState, now: PublicState, private: Private) -> int:
        """See `Method`; it is coded."""
        return len(self.encode_change(base, now, private))

    def decode_change(self, base: PublicState, change: bytes) -> NDArray[Any]:
        """See `Method`."""
        if not change:
            return base.values
        if not self.counts:
            return _probabilities_from(change, self._num_params)
        num_votes = int.from_bytes(change[: _COUNT.itemsize], "little")
        if num_votes == 0 or len(change) <= _COUNT.itemsize:
            raise MalformedFrame("counts of votes", got=f"{num_votes} votes, {len(change)} bytes")
        theta, planes = self.probabilities(base), _planes_of(num_votes)
        reader = Reader(change[_COUNT.itemsize :], (self._num_buckets(planes), (1 << planes) - 1))
        values = np.empty(self._num_params + 1, np.uint16)
        values[-1] = num_votes
        for start, stop in self._groups.blocks():
            contexts = self._buckets(theta[start:stop], planes)
            prefix = np.zeros(stop - start, np.uint16)
            for plane in range(planes):
                node = prefix + np.uint16((1 << plane) - 1)
                prefix = 2 * prefix + reader.read(contexts + node)
            values[start:stop] = prefix
            reader.end_block()
        reader.finish()
        if int(values[:-1].max()) > num_votes:
            raise MalformedFrame("count of votes", got=int(values[:-1].max()), wanted=f"at most {num_votes}")
        return values

    def vote(self, public: PublicState, slot: int, trainer: Trainer, memory: NDArray[Any] | None) -> Trained:
        """See `Method`; a sampled mask."""
        theta, round_ = self.probabilities(public), public.round + 1
        trained, metrics = trained_like(theta, trainer, round_)
        packed = np.empty(-(-self._num_params // 8), np.uint8)
        for start, stop in self._groups.blocks():
            u = dither(self.spec.model.seed, round_, slot, start, stop)
            packed[start // 8 : -(-stop // 8)] = pack(u < np.rint(trained[start:stop] * np.float32(ONE)))

        def decide(start: int, stop: int) -> list[Decisions]:
            return [(unpack(packed, start, stop), self._vote_contexts(theta[start:stop]))]

        def code() -> bytes:
            return encode(self._num_params, decide, self._vote_shape, self._groups.restarts)

        return Trained(Payload(packed, code), b"", metrics)

    def read_vote(self, base: PublicState, slot: int, vote: bytes, vote_hash: bytes) -> NDArray[np.uint8]:
        """See `Method`."""
        _no_hash(vote_hash)
        theta, packed = self.probabilities(base), np.empty(-(-self._num_params // 8), np.uint8)
        reader = Reader(vote, self._vote_shape)
        for start, stop in self._groups.blocks():
            packed[start // 8 : -(-stop // 8)] = pack(reader.read(self._vote_contexts(theta[start:stop])))
            reader.end_block()
        reader.finish()
        return packed

    def tally(self) -> MaskTally:
        """See `Method`."""
        return MaskTally(self._num_params)

    def commit(self, public: PublicState, private: Private, votes: MaskTally) -> tuple[PublicState, Private]:
        """See `Method`; a round without votes changes nothing but its number."""
        num_votes, values = votes.num_votes, public.values
        if num_votes > MAX_VOTES:
            raise LocalError("votes of a round", got=num_votes, wanted=f"at most {MAX_VOTES}")
        if num_votes and self.counts:
            values = np.append(votes.counts(), num_votes).astype(np.uint16)
        elif num_votes:
            values = _of_counts(votes.counts(), num_votes)
        return PublicState(public.round + 1, values), ()

    def released(self, public: PublicState, private: Private) -> PublicState:
        """See `Method`; what is shared."""
        return public

    def check_private(self, private: Private) -> None:
        """See `Method`; there is nothing."""

    def weights(self, public: PublicState) -> NDArray[np.float32]:
        """See `Method`; those that are rather kept than not."""
        return rebuild(self.spec.model, self.mask(public))

    def mask(self, public: PublicState) -> Mask:
        """Returns the thresholded mask: the model that can be shipped."""
        return Mask.from_bits(self.probabilities(public) > 0.5, self.spec.model.sizes)

    def probabilities(self, public: PublicState) -> NDArray[np.float32]:
        """Returns with which probability each weight is kept: float32 [n], between 0 and 1."""
        if not self.counts:
            return public.values
        counts, num_votes = public.values[:-1], int(public.values[-1])
        return _of_counts(counts, num_votes) if num_votes else _of_levels(counts)

    @cached_property
    def _groups(self) -> LayerGroups:
        return LayerGroups.of(self.spec.model.sizes)

    @property
    def _num_params(self) -> int:
        return self.spec.model.num_params

    @property
    def _vote_shape(self) -> tuple[int, ...]:
        return (_VOTE_BUCKETS if self.counts else 1,)

    def _vote_contexts(self, theta: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Returns how a vote's decisions are told apart; as published they are all alike."""
        if not self.counts:
            return np.zeros(theta.size, np.uint16)
        return (theta * np.float32(_VOTE_BUCKETS)).astype(np.uint16)

    def _num_buckets(self, planes: int) -> int:
        return max(1, min(_VOTE_BUCKETS, _MAX_CONTEXTS >> planes))

    def _buckets(self, theta: NDArray[np.float32], planes: int) -> NDArray[np.uint16]:
        """Returns the first context of each weight's count."""
        # A product with a power of two is exact, so both ends cut alike.
        bucket = (theta * np.float32(self._num_buckets(planes))).astype(np.uint16)
        return bucket * np.uint16((1 << planes) - 1)


_VOTE_BUCKETS = 64


def _planes_of(num_votes: int) -> int:
    return num_votes.bit_length()


def _count_decisions(
    counts: NDArray[np.uint16], contexts: NDArray[np.uint16], planes: int
) -> Iterator[Decisions]:
    """Yields the bits of counts, from the highest; those before it are a bit's context."""
    for plane in range(planes):
        prefix = counts >> np.uint16(planes - plane)
        bits = counts >> np.uint16(planes - 1 - plane) & np.uint16(1)
        yield bits.astype(np.bool_), contexts + prefix + np.uint16((1 << plane) - 1)


def _of_levels(levels: NDArray[np.uint16]) -> NDArray[np.float32]:
    return levels.clip(LOWEST, HIGHEST).astype(np.float32) / np.float32(ONE)


def _of_counts(counts: NDArray[Any], num_votes: int) -> NDArray[np.float32]:
    """Returns the mean of masks that count as 0.01 and 0.99."""
    shares = np.arange(num_votes + 1, dtype=np.float64) / num_votes
    table: NDArray[np.float32] = (_LEAST + (1 - 2 * _LEAST) * shares).astype(np.float32)
    return table.take(counts)


def _probabilities_from(change: bytes, num_params: int) -> NDArray[np.float32]:
    if len(change) != 4 * num_params:
        raise MalformedFrame("length of the probabilities", got=len(change), wanted=4 * num_params)
    theta = np.frombuffer(change, "<f4").astype(np.float32)
    if not (theta > 0).all() or not (theta < 1).all():
        raise MalformedFrame("a probability", wanted="above 0, below 1")
    return theta


def _no_hash(vote_hash: bytes) -> None:
    if vote_hash:
        raise MalformedFrame("hash of a vote that needs none")
