"""The `mask` method: a seed once, then only binary masks in both directions.

`MaskServer` and `MaskClient` are the two halves. Each is a frozen value that holds what does not change in a run;
what changes is passed in and returned. They are fed messages and give messages back: no socket, file or clock.

Source: docs/algorithm.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pemn.errors import LocalError, OutOfSync, WrongRound, WrongSpec
from pemn.federation import public, tally
from pemn.federation.flips import decode_votes, encode_flips
from pemn.federation.levels import Levels, dither
from pemn.federation.public import PublicState
from pemn.mask import Mask
from pemn.rebuild import rebuild, weights_sha256
from pemn.wire.messages import Ack, Broadcast, Content, Metrics, Update
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


def levels_of(spec: Spec) -> Levels:
    """Returns the probabilities of a run's network."""
    return Levels(spec.protocol, spec.model.seed, spec.model.num_params)


@dataclass(frozen=True, eq=False)
class ServerState:
    """All that a server has learnt; with the spec it is enough to go on from.

    Attributes:
        public: What everybody shares.
        p_hat: int32 [n], in 2^-24; what the server knows more finely. It never leaves the server.
        known: For each slot that has the spec, the round of the public state that it was last seen with.
        past: The public states of those rounds.
    """

    public: PublicState
    p_hat: NDArray[np.int32]
    known: Mapping[int, int] = field(default_factory=dict)
    past: Mapping[int, PublicState] = field(default_factory=dict)


@dataclass(frozen=True)
class Vote:
    """A checked update: int8 [n] of -1, 0, 1, and what the client said of its work."""

    flips: NDArray[np.int8]
    metrics: Metrics


@dataclass(frozen=True)
class MaskServer:
    """The server's half.

    Attributes:
        spec: The run.
        levels: Its probabilities.
    """

    spec: Spec
    levels: Levels

    @classmethod
    def of(cls, spec: Spec) -> MaskServer:
        """Returns the server's half of a run."""
        return cls(spec, levels_of(spec))

    def start(self) -> ServerState:
        """Returns the state before the first round."""
        first = PublicState.start(self.spec.model.num_params)
        return ServerState(first, tally.start(self.levels.at(first.k)), {}, {0: first})

    def tasks(self, state: ServerState, slots: Iterable[int]) -> dict[int, Content]:
        """Returns what each client needs to have the public state: the spec if it is new, and a broadcast.

        Clients that were last seen with the same state share one broadcast.
        """
        bases = {slot: state.known.get(slot, 0) for slot in slots}
        broadcasts = {
            base: public.broadcast(self.spec.run_id, self.levels, state.past[base], state.public)
            for base in set(bases.values())
        }
        return {
            slot: Content(spec=None if slot in state.known else self.spec, broadcast=broadcasts[base])
            for slot, base in bases.items()
        }

    def read_vote(self, state: ServerState, slot: int, update: Update) -> Vote:
        """Checks an answer to a training task of the round after `state`.

        Raises:
            WrongRound: If it is for another round, run or slot.
            OutOfSync: If it was trained from another public state.
            MalformedFrame: If its flips are no canonical coded mask.
        """
        wanted = (self.spec.run_id, state.public.round + 1, slot)
        got = (update.run_id, update.round, update.slot)
        if got != wanted:
            raise WrongRound("run, round and slot", got=got, wanted=wanted, where="update")
        self._check_state(state, slot, update.state_hash)
        q = self.levels.at(state.public.k)
        u = dither(self.spec.model.seed, update.round, slot, q.size)
        return Vote(decode_votes(update.flips, q, u), update.metrics)

    def weights_sha256(self, state: ServerState) -> bytes:
        """Returns the hash of the weights that every client with this state must have."""
        return weights_sha256(rebuild(self.spec.model, self.mask(state)))

    def check_ack(self, state: ServerState, slot: int, ack: Ack, weights: bytes) -> None:
        """Checks an answer to a task without training.

        Args:
            state: What the client was given.
            slot: Who was asked.
            ack: Its answer.
            weights: As `weights_sha256` returns them.

        Raises:
            WrongRound: If it is for another round, run or slot.
            OutOfSync: If the client has another public state or other weights.
        """
        wanted = (self.spec.run_id, state.public.round, slot)
        got = (ack.run_id, ack.round, ack.slot)
        if got != wanted:
            raise WrongRound("run, round and slot", got=got, wanted=wanted, where="acknowledgement")
        self._check_state(state, slot, ack.state_hash)
        if ack.weights_sha256 != weights:
            raise OutOfSync(
                "hash of the weights",
                got=ack.weights_sha256.hex(),
                wanted=weights.hex(),
                where=f"slot {slot}",
            )

    def commit(self, state: ServerState, votes: Mapping[int, Vote]) -> ServerState:
        """Returns the state after a round.

        Args:
            state: Before the round.
            votes: One vote a slot; their order does not matter.
        """
        protocol, now = self.spec.protocol, state.public
        p_hat = tally.learn(protocol, state.p_hat, (votes[slot].flips for slot in sorted(votes)))
        k = tally.settle(protocol, p_hat, now.k, self.levels.at(now.k))
        after = PublicState(now.round + 1, k)
        return _remember(replace(state, public=after, p_hat=p_hat), dict.fromkeys(votes, now))

    def seen(self, state: ServerState, slot: int) -> ServerState:
        """Returns the state with the knowledge that a client has the public state of now."""
        return _remember(state, {slot: state.public})

    def rewind(self, state: ServerState, slot: int) -> ServerState:
        """Returns the state for a client that is out of step: it gets a keyframe, the moves since round 0."""
        return replace(state, known={**state.known, slot: 0})

    def forget(self, state: ServerState, slot: int) -> ServerState:
        """Returns the state for a client that has lost its store: it gets the spec again, and a keyframe."""
        known = {s: r for s, r in state.known.items() if s != slot}
        return replace(state, known=known)

    def mask(self, state: ServerState) -> Mask:
        """Returns the model that everybody shares."""
        return state.public.mask(self.levels, self.spec.model.sizes)

    def _check_state(self, state: ServerState, slot: int, state_hash: bytes) -> None:
        wanted = state.public.hash(self.spec.run_id)
        if state_hash != wanted:
            raise OutOfSync("public state", got=state_hash.hex(), wanted=wanted.hex(), where=f"slot {slot}")


def _remember(state: ServerState, seen: Mapping[int, PublicState]) -> ServerState:
    """Notes what clients have, and keeps just the public states that some client has."""
    known = {**state.known, **{slot: has.round for slot, has in seen.items()}}
    kept = {0, *known.values()}
    past = {r: s for r, s in state.past.items() if r in kept} | {has.round: has for has in seen.values()}
    return replace(state, known=known, past=past)


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
        return cls(spec, levels_of(spec), slot)

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
        round_ = state.round + 1
        q = self.levels.at(state.k)
        trained, metrics = trainer.train(q, round_)
        if trained.shape != q.shape or trained.dtype != q.dtype:
            raise LocalError("trained probabilities", got=(trained.dtype, trained.shape))
        u = dither(self.spec.model.seed, round_, self.slot, q.size)
        flips = encode_flips(trained, q, u)
        return Update(self.spec.run_id, round_, self.slot, state.hash(self.spec.run_id), flips, metrics)

    def acknowledge(self, state: PublicState) -> Ack:
        """Rebuilds the weights of the shared model and says which they are."""
        weights = rebuild(self.spec.model, state.mask(self.levels, self.spec.model.sizes))
        run_id = self.spec.run_id
        return Ack(run_id, state.round, self.slot, state.hash(run_id), weights_sha256(weights))
