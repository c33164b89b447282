"""Federated averaging of ordinary weights: what everything else is compared with.

Clients train all weights from the shared ones; the next model is their mean, weighted by images. With `eight_bits` the
weights travel down, and their changes up, as one byte each and a float32 scale a layer, rounded at random.

The public values are the weights that clients have, float32 [n]. With 8 bits they are the bytes that travel, and the
server keeps the weights as they were before they were rounded, float32 [n]. Trainers are given weights and return such.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
Algorithm 1; the rounding is that of Alistarh et al., "QSGD", NeurIPS 2017, Section 3.1, by the largest of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemn.errors import LocalError, MalformedFrame
from pemn.federation.levels import ONE, dither
from pemn.federation.public import PublicState
from pemn.methods.method import Private, Trained, Trainer, trained_like
from pemn.rebuild import frozen_weights
from pemn.wire.limits import MAX_SLOTS
from pemn.wire.messages import Metrics
from pemn.wire.payload import Payload
from pemn.wire.spec import Spec

_STEPS = 127
_LARGEST = float(np.finfo(np.float32).max)
_SERVER = MAX_SLOTS
"""Number of the server among those that draw dither."""


class Mean:
    """The weighted mean of arrays; holds all of them, because a sum of floats depends on their order."""

    def __init__(self) -> None:
        self._votes: dict[int, tuple[NDArray[np.float32], int]] = {}

    def add(self, slot: int, vote: NDArray[np.float32], metrics: Metrics) -> None:
        """Takes an array, weighted by the images that it was trained on."""
        self._votes[slot] = (vote, metrics.num_images)

    def mean(self) -> NDArray[np.float32] | None:
        """Returns the mean, by slots in turn; None if there is nothing to average."""
        total = sum(weight for _, weight in self._votes.values())
        if not total:
            return None
        votes = [self._votes[slot] for slot in sorted(self._votes)]
        mean = np.zeros_like(votes[0][0])
        scaled = np.empty_like(mean)
        for vote, weight in votes:
            np.multiply(vote, np.float32(weight / total), out=scaled)
            mean += scaled
        return mean


@dataclass(frozen=True)
class FedAvgMethod:
    """A run of the method.

    Attributes:
        spec: The run.
    """

    spec: Spec

    @property
    def eight_bits(self) -> bool:
        """Whether weights and their changes travel in 8 bits."""
        return self.spec.method == "fedavg-int8"

    @property
    def complete(self) -> bool:
        """See `Method`."""
        return True

    def start(self) -> tuple[PublicState, Private]:
        """See `Method`; the frozen weights of a masked network are the initial ones of an ordinary one."""
        weights = frozen_weights(self.spec.model)
        if not self.eight_bits:
            return PublicState(0, weights), ()
        return PublicState(0, self._rounded(weights, 0)), (weights,)

    def encode_change(self, base: PublicState, now: PublicState, private: Private) -> bytes:
        """See `Method`; all weights."""
        if now.round == base.round:
            return b""
        return now.values.tobytes() if self.eight_bits else _to_bytes(now.values)

    def change_size(self, base: PublicState, now: PublicState, private: Private) -> int:
        """See `Method`; exact."""
        return 0 if now.round == base.round else now.values.nbytes

    def decode_change(self, base: PublicState, change: bytes) -> NDArray[Any]:
        """See `Method`."""
        if not change:
            return base.values
        if not self.eight_bits:
            return self._from_bytes(change)
        self._dequantise(change)
        return np.frombuffer(change, np.uint8)

    def vote(self, public: PublicState, slot: int, trainer: Trainer, memory: NDArray[Any] | None) -> Trained:
        """See `Method`; all weights, or their changes in 8 bits."""
        start, round_ = self.weights(public), public.round + 1
        trained, metrics = trained_like(start, trainer, round_)
        if not self.eight_bits:
            _check_finite(trained)
            return Trained(Payload(trained, lambda: _to_bytes(trained), lambda: trained.nbytes), b"", metrics)
        quantised = self._quantise(trained - start, round_, slot).tobytes()
        return Trained(Payload(self._dequantise(quantised), lambda: quantised), b"", metrics)

    def read_vote(self, base: PublicState, slot: int, vote: bytes, vote_hash: bytes) -> NDArray[np.float32]:
        """See `Method`."""
        if vote_hash:
            raise MalformedFrame("hash of a vote that needs none")
        return self._dequantise(vote) if self.eight_bits else self._from_bytes(vote)

    def tally(self) -> Mean:
        """See `Method`."""
        return Mean()

    def commit(self, public: PublicState, private: Private, votes: Mean) -> tuple[PublicState, Private]:
        """See `Method`."""
        mean, round_ = votes.mean(), public.round + 1
        if mean is None:
            return PublicState(round_, public.values), private
        if not self.eight_bits:
            return PublicState(round_, mean), ()
        weights = private[0] + mean
        return PublicState(round_, self._rounded(weights, round_)), (weights,)

    def released(self, public: PublicState, private: Private) -> PublicState:
        """See `Method`; what is shared."""
        return public

    def check_private(self, private: Private) -> None:
        """See `Method`.

        Raises:
            ValueError: If a weight is none.
        """
        if not all(np.isfinite(array).all() for array in private):
            raise ValueError("weights")

    def mask(self, public: PublicState) -> None:
        """See `Method`; its weights are ordinary ones."""

    def weights(self, public: PublicState) -> NDArray[np.float32]:
        """See `Method`."""
        return self._dequantise(public.values.tobytes()) if self.eight_bits else public.values

    def _from_bytes(self, data: bytes) -> NDArray[np.float32]:
        num_params = self.spec.model.num_params
        if len(data) != 4 * num_params:
            raise MalformedFrame("length of weights", got=len(data), wanted=4 * num_params)
        weights = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
        if not np.isfinite(weights.sum(dtype=np.float64)):
            raise MalformedFrame("weights that are not finite")
        return weights

    def _rounded(self, weights: NDArray[np.float32], round_: int) -> NDArray[np.uint8]:
        """Returns what clients get of the server's weights."""
        return self._quantise(weights, round_, _SERVER)

    def _quantise(self, values: NDArray[np.float32], round_: int, drawer: int) -> NDArray[np.uint8]:
        """Rounds values at random to multiples of a 127th of the largest of their layer, so that none is biased.

        Returns:
            uint8 [4 L + n]: the unit of each of the L layers, float32, and a signed byte a value.
        """
        units, steps, begin = [], np.empty(values.size, np.int8), 0
        for size in self.spec.model.sizes:
            layer = values[begin : begin + size]
            unit = np.float32(np.abs(layer).max() / _STEPS) or np.float32(1)
            u = dither(self.spec.model.seed, round_, drawer, begin, begin + size) / np.float32(ONE)
            steps[begin : begin + size] = np.floor(layer / unit + u).clip(-_STEPS, _STEPS)
            units.append(unit)
            begin += size
        return np.concatenate([np.array(units, "<f4").view(np.uint8), steps.view(np.uint8)])

    def _dequantise(self, data: bytes) -> NDArray[np.float32]:
        sizes = self.spec.model.sizes
        wanted = 4 * len(sizes) + sum(sizes)
        if len(data) != wanted:
            raise MalformedFrame("length of weights in 8 bits", got=len(data), wanted=wanted)
        units = np.frombuffer(data, "<f4", len(sizes)).astype(np.float32)
        steps = np.frombuffer(data, np.int8, offset=4 * len(sizes))
        # Not a number, or too large for a finite weight, is refused as well.
        fit = (units > 0) & (units.astype(np.float64) * _STEPS <= _LARGEST)
        if not fit.all() or (steps < -_STEPS).any():
            raise MalformedFrame("weights in 8 bits", wanted=f"units above 0, steps -{_STEPS} .. {_STEPS}")
        return np.multiply(steps, np.repeat(units, sizes), dtype=np.float32)


def _check_finite(weights: NDArray[np.float32]) -> None:
    """Raises a LocalError for weights that are not."""
    if not np.isfinite(weights.sum(dtype=np.float64)):
        raise LocalError("weights that are not finite")


def _to_bytes(weights: NDArray[np.float32]) -> bytes:
    return weights.astype("<f4", copy=False).tobytes()
