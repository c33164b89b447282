"""A client's half of a run, whatever the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from pemn.errors import MissingSpec, OutOfSync, WrongSpec
from pemn.federation.public import PublicState
from pemn.methods.method import Method, Trainer
from pemn.methods.registry import method_of
from pemn.rebuild import weights_sha256
from pemn.wire.messages import Ack, Broadcast, Update
from pemn.wire.payload import Payload
from pemn.wire.spec import Spec


@dataclass(frozen=True)
class Client:
    """The client's half.

    Attributes:
        method: Of the run.
        slot: The client's number, 0 .. num_slots-1.
        hand_over: Whether the server is in this process, and payloads need not be coded.
    """

    method: Method
    slot: int
    hand_over: bool = False

    @classmethod
    def of(cls, spec: Spec, slot: int, hand_over: bool = False) -> Client:
        """Returns a client's half of a run.

        Raises:
            WrongSpec: If the run has no such slot.
        """
        if not 0 <= slot < spec.data.num_slots:
            raise WrongSpec("slot", got=slot, wanted=f"0 .. {spec.data.num_slots - 1}")
        return cls(method_of(spec), slot, hand_over)

    @property
    def spec(self) -> Spec:
        """The run."""
        return self.method.spec

    def start(self) -> PublicState:
        """Returns the state before the first round."""
        return self.method.start()[0]

    def apply(self, state: PublicState, message: Broadcast) -> PublicState:
        """Returns the public state after a broadcast; one that was applied before changes nothing.

        Raises:
            MissingSpec: If it is of another run.
            OutOfSync: If it starts from another state than `state`, or leads to another hash.
            MalformedFrame: If its change is none.
        """
        run_id = self.spec.run_id
        if message.run_id != run_id:
            raise MissingSpec("run", got=f"{message.run_id:016x}", wanted=f"{run_id:016x}", where="broadcast")
        if message.round == state.round and message.state_hash == state.hash(run_id):
            return state
        if isinstance(message.change, Payload):
            handed: PublicState = message.change.content
            return handed
        if not (self.method.complete and message.change):
            if (
                message.base_round == 0
            ):  # a keyframe: it counts for nothing what this client has, or takes for round 0
                state = self.start()
            if message.base_round != state.round:
                raise OutOfSync("base round", got=message.base_round, wanted=state.round, where="broadcast")
        after = PublicState(message.round, self.method.decode_change(state, message.change))
        if after.hash(run_id) != message.state_hash:
            raise OutOfSync("hash of the public state", where=f"broadcast of round {message.round}")
        return after

    def train(
        self, state: PublicState, trainer: Trainer, memory: NDArray[Any] | None = None
    ) -> tuple[Update, NDArray[Any] | None]:
        """Trains a round on the public state and votes.

        Args:
            state: What to start from.
            trainer: Of the method's kind.
            memory: What the last call returned, if there was one.

        Returns:
            The vote, and what this client has to keep for the next one, if anything.

        Raises:
            LocalError: If the trainer returns what is none of this network.
        """
        trained, run_id = self.method.vote(state, self.slot, trainer, memory), self.spec.run_id
        update = Update(
            run_id=run_id,
            round=state.round + 1,
            slot=self.slot,
            state_hash=state.hash(run_id),
            vote=trained.vote if self.hand_over else bytes(trained.vote),
            vote_hash=trained.vote_hash,
            metrics=trained.metrics,
        )
        return update, trained.memory

    def acknowledge(self, state: PublicState) -> Ack:
        """Rebuilds the weights of the shared model and says which they are."""
        weights, run_id = self.method.weights(state), self.spec.run_id
        return Ack(run_id, state.round, self.slot, state.hash(run_id), weights_sha256(weights))
