"""A client's half of the `mask` method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pemn.errors import LocalError, WrongSpec
from pemn.federation import public
from pemn.federation.flips import Draw, draw_flips, encode_flips
from pemn.federation.levels import Levels
from pemn.federation.public import PublicState
from pemn.rebuild import rebuild, weights_sha256
from pemn.wire.messages import Ack, Broadcast, Metrics, Update
from pemn.wire.spec import Spec


class Trainer(Protocol):
    """What a client needs of a training framework."""

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        """Trains scores on the client's data.

        Args:
            q: Public probabilities to start from, uint16 [n], in 1/65536.
            round_: Which round, from 1; keys every random draw.

        Returns:
            The trained probabilities, uint16 [n], in the range of q (equal to q where nothing was trained), and
            metrics.
        """
        ...


@dataclass(frozen=True)
class MaskClient:
    """The client's half.

    Attributes:
        spec: The run.
        levels: Its probabilities.
        slot: The client's number, 0 .. num_slots-1.
    """

    spec: Spec
    levels: Levels
    slot: int

    @classmethod
    def of(cls, spec: Spec, slot: int) -> MaskClient:
        """Returns a client's half of a run.

        Raises:
            WrongSpec: If the run has no such slot.
        """
        if not 0 <= slot < spec.data.num_slots:
            raise WrongSpec("slot", got=slot, wanted=f"0 .. {spec.data.num_slots - 1}")
        return cls(spec, Levels.of(spec), slot)

    def start(self) -> PublicState:
        """Returns the state before the first round."""
        return PublicState.start(self.spec.model.num_params)

    def apply(self, state: PublicState, message: Broadcast) -> PublicState:
        """Returns the public state after a broadcast.

        Raises:
            OutOfSync: If the broadcast does not lead from `state` to its own hash.
            MalformedFrame: If it is corrupt.
        """
        return public.apply(self.spec, self.levels, state, message)

    def train(self, state: PublicState, trainer: Trainer) -> Update:
        """Trains a round on the public state and votes.

        Raises:
            LocalError: If the trainer returns probabilities of another network.
        """
        round_, run_id = state.round + 1, self.spec.run_id
        q = self.levels.at(state.k)
        trained, metrics = trainer.train(q, round_)
        if trained.shape != q.shape or trained.dtype != q.dtype:
            raise LocalError("trained probabilities", got=(trained.dtype, trained.shape))
        draw = Draw(self.levels, state.k, round_, self.slot)
        flips, state_hash = draw_flips(trained, draw), state.hash(run_id)
        return Update(
            run_id=run_id,
            round=round_,
            slot=self.slot,
            state_hash=state_hash,
            flips=encode_flips(flips),
            flips_hash=flips.hash(state_hash),
            metrics=metrics,
        )

    def acknowledge(self, state: PublicState) -> Ack:
        """Rebuilds the weights of the shared model and says which they are."""
        weights = rebuild(self.spec.model, state.mask(self.levels))
        run_id = self.spec.run_id
        return Ack(run_id, state.round, self.slot, state.hash(run_id), weights_sha256(weights))
