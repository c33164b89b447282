"""The `mask` method: a seed once, then only binary masks in both directions.

The public values are k, int8: how many steps each weight, or tie of weights, has moved. The private arrays are p_hat,
int32 in 2^-24: what the server knows more finely, and, where the released model is averaged, its average. Trainers are
given q and return p, both uint16 in 1/65536.

Source: docs/algorithm.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemn.errors import MalformedFrame
from pemn.federation import tally
from pemn.federation.defence import Defence, TrimmedTally, outliers
from pemn.federation.flips import Draw, Flips, decode_flips, draw_flips, encode_flips, flips_size
from pemn.federation.levels import Levels
from pemn.federation.moves import decode_moves, encode_moves, moves_size
from pemn.federation.public import PublicState
from pemn.mask import Mask
from pemn.methods.method import Private, Trained, Trainer, trained_like
from pemn.rebuild import rebuild
from pemn.wire.messages import Metrics
from pemn.wire.payload import Payload
from pemn.wire.protocols import MaskProtocol
from pemn.wire.spec import Spec


class FlipTally:
    """Holds sums and up to seven votes, so its size hardly grows with their number."""

    def __init__(self, num_params: int, defence: Defence = Defence.NONE) -> None:
        self._flips = (TrimmedTally if defence is Defence.TRIM else tally.Tally)(num_params)

    @property
    def flips(self) -> tally.Tally:
        """What was counted."""
        return self._flips

    def left_out(self) -> list[int]:
        """Returns the slots whose votes do not count."""
        return []

    def add(self, slot: int, vote: Flips, metrics: Metrics) -> None:
        """Takes a vote; all are equal."""
        self._flips.add(vote)


class ScoredFlipTally(FlipTally):
    """Holds all votes of the round, a bit a weight each: which of them count is known when all are there."""

    def __init__(self, num_params: int) -> None:
        super().__init__(num_params)
        self._votes: dict[int, Flips] = {}

    @property
    def flips(self) -> tally.Tally:
        """See `FlipTally`."""
        counted, left_out = tally.Tally(self._flips.num_params), self.left_out()
        for slot, vote in self._votes.items():
            if slot not in left_out:
                counted.add(vote)
        return counted

    def left_out(self) -> list[int]:
        """See `FlipTally`."""
        slots = sorted(self._votes)
        return [slots[i] for i in outliers([self._votes[slot] for slot in slots])]

    def add(self, slot: int, vote: Flips, metrics: Metrics) -> None:
        """See `FlipTally`."""
        self._votes[slot] = vote


@dataclass(frozen=True)
class MaskMethod:
    """A run of the method.

    Attributes:
        spec: The run.
        protocol: How the public state moves.
        levels: From k to probabilities.
        defence: What of a round's votes the server leaves out.
    """

    spec: Spec
    protocol: MaskProtocol
    levels: Levels
    defence: Defence = Defence.NONE

    @classmethod
    def of(cls, spec: Spec) -> MaskMethod:
        """Returns the method of a run."""
        return cls(spec, spec.mask, Levels.of(spec))

    def start(self) -> tuple[PublicState, Private]:
        """See `Method`."""
        k = np.zeros(self.levels.num_params, np.int8)
        p_hat = tally.start(self.levels.at(k))
        return PublicState(0, k), (p_hat,) if self.protocol.window == 1 else (p_hat, p_hat)

    def encode_change(self, base: PublicState, now: PublicState, private: Private) -> bytes:
        """See `Method`; moves."""
        return encode_moves(base.values, now.values, self.levels)

    def change_size(self, base: PublicState, now: PublicState, private: Private) -> int:
        """See `Method`."""
        return moves_size(base.values, now.values, self.levels)

    def decode_change(self, base: PublicState, change: bytes) -> NDArray[np.int8]:
        """See `Method`."""
        return decode_moves(change, base.values, self.levels)

    @property
    def complete(self) -> bool:
        """See `Method`."""
        return False

    def vote(self, public: PublicState, slot: int, trainer: Trainer, memory: NDArray[Any] | None) -> Trained:
        """See `Method`; flips."""
        trained, metrics = trained_like(self.levels.at(public.values), trainer, public.round + 1)
        flips = draw_flips(trained, self._draw(public, slot))
        vote = Payload(flips, lambda: encode_flips(flips), lambda: flips_size(flips))
        return Trained(vote, flips.hash(public.hash(self.spec.run_id)), metrics)

    def read_vote(self, base: PublicState, slot: int, vote: bytes, vote_hash: bytes) -> Flips:
        """See `Method`."""
        flips = decode_flips(vote, self._draw(base, slot))
        if flips.hash(base.hash(self.spec.run_id)) != vote_hash:
            raise MalformedFrame("hash of the flips", where=f"update of slot {slot}")
        return flips

    def tally(self) -> FlipTally:
        """See `Method`."""
        if self.defence is Defence.SCORE:
            return ScoredFlipTally(self.levels.num_params)
        return FlipTally(self.levels.num_params, self.defence)

    def commit(self, public: PublicState, private: Private, votes: FlipTally) -> tuple[PublicState, Private]:
        """See `Method`."""
        round_ = public.round + 1
        q = self.levels.at(public.values)
        flips = votes.flips
        p_hat = tally.learn(self.protocol, round_, private[0], flips)
        if flips.num_votes:
            p_hat = tally.forget(self.protocol, round_, p_hat, q)
        learnt: Private = (p_hat,)
        if self.protocol.window > 1:
            learnt = (p_hat, tally.average(self.protocol, round_, private[1], p_hat))
        k = tally.settle(self.protocol, round_, p_hat, public.values, q)
        # What decides the weights is told at once, the rest of p_hat when it is worth it.
        after = PublicState(round_, tally.agree(self.protocol, round_, p_hat, k, self._starts))
        return self.released(after, learnt) if round_ == self.spec.num_rounds else after, learnt

    def released(self, public: PublicState, private: Private) -> PublicState:
        """See `Method`; its mask is that of the averaged p_hat."""
        k = tally.agree(self.protocol, max(public.round, 1), private[-1], public.values, self._starts)
        return PublicState(public.round, k)

    def check_private(self, private: Private) -> None:
        """See `Method`."""
        for p_hat in private:
            if int(p_hat.min()) < 0 or int(p_hat.max()) > tally.UNIT:
                raise ValueError("p_hat")

    def weights(self, public: PublicState) -> NDArray[np.float32]:
        """See `Method`; those of `mask`."""
        return rebuild(self.spec.model, self.mask(public))

    def mask(self, public: PublicState) -> Mask:
        """See `Method`."""
        return self.levels.mask(public.values)

    @cached_property
    def _starts(self) -> NDArray[np.uint16]:
        return self.levels.at(np.zeros(self.levels.num_params, np.int8))

    def _draw(self, base: PublicState, slot: int) -> Draw:
        return Draw(self.levels, base.values, base.round + 1, slot)
