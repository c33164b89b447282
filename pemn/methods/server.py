"""The server's half of a run, whatever the method: who has which model, who has voted, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pemn.errors import LocalError, OutOfSync, WrongRound
from pemn.federation.defence import Defence
from pemn.federation.public import PublicState
from pemn.methods.ballot import Ballot, Vote
from pemn.methods.mask import MaskMethod
from pemn.methods.method import Method, Private
from pemn.methods.registry import method_of
from pemn.rebuild import weights_sha256
from pemn.wire.messages import Ack, Broadcast, Content, Update
from pemn.wire.payload import Payload
from pemn.wire.spec import Spec


@dataclass(frozen=True, eq=False)
class ServerState:
    """All that a server has learnt; with the spec it is enough to go on from.

    Attributes:
        public: What everybody shares.
        private: What the server knows besides; it never leaves the server.
        known: For each slot that has the spec, the round of the public state that it was last seen with.
        voted: For each slot, the last round that it has voted for.
        past: Earlier public states that clients may still have, by their rounds; that of round 0 always, once it is
            one of them.
    """

    public: PublicState
    private: Private
    known: Mapping[int, int] = field(default_factory=dict)
    voted: Mapping[int, int] = field(default_factory=dict)
    past: Mapping[int, PublicState] = field(default_factory=dict)

    def at(self, round_: int) -> PublicState | None:
        """Returns the public state of a round, if it is still kept."""
        return self.public if round_ == self.public.round else self.past.get(round_)


@dataclass(frozen=True)
class Server:
    """The server's half.

    Attributes:
        method: Of the run.
        late_rounds: How many rounds a vote may come too late and still count, whole; 0 refuses every late one.
        past_rounds: For how many rounds the state that a client has is kept, n bytes each. A client that was away for
            longer gets a keyframe, the change since round 0.
        hand_over: Whether the clients are in this process, and payloads need not be coded.
    """

    method: Method
    late_rounds: int = 0
    past_rounds: int = 16
    hand_over: bool = False

    @classmethod
    def of(
        cls,
        spec: Spec,
        late_rounds: int = 0,
        past_rounds: int = 16,
        hand_over: bool = False,
        defence: Defence = Defence.NONE,
    ) -> Server:
        """Returns the server's half of a run; a defence is for `mask` alone."""
        method = method_of(spec)
        if isinstance(method, MaskMethod):
            method = replace(method, defence=defence)
        elif defence is not Defence.NONE:
            raise LocalError("defence", got=defence, wanted="the method mask", where=spec.method)
        return cls(method, late_rounds, past_rounds, hand_over)

    @property
    def spec(self) -> Spec:
        """The run."""
        return self.method.spec

    def start(self) -> ServerState:
        """Returns the state before the first round."""
        return ServerState(*self.method.start())

    def tasks(self, state: ServerState, slots: Iterable[int]) -> dict[int, Content]:
        """Returns what each client needs to have the public state: the spec if it is new, and a broadcast.

        Clients that were last seen with the same state share one broadcast. Who missed rounds gets the change since
        its own state or the keyframe, whichever is shorter.
        """
        bases = {slot: self._base(state, slot) for slot in slots}
        broadcasts = {base.round: self._broadcast(state, base) for base in set(bases.values())}
        behind = [round_ for round_ in broadcasts if 0 < round_ < state.public.round - 1]
        if behind:
            keyframe = broadcasts.get(0) or self._broadcast(state, state.past[0])
            for round_ in behind:
                broadcasts[round_] = min(
                    broadcasts[round_], keyframe, key=lambda message: len(message.change)
                )
        return {
            slot: Content(spec=None if slot in state.known else self.spec, broadcast=broadcasts[base.round])
            for slot, base in bases.items()
        }

    def _base(self, state: ServerState, slot: int) -> PublicState:
        """Returns the public state that a client is to be brought up from: its own, or that of round 0."""
        known = 0 if self.method.complete else state.known.get(slot, 0)
        return state.at(known) or state.past[0]

    def _broadcast(self, state: ServerState, base: PublicState) -> Broadcast:
        now, run_id = state.public, self.spec.run_id
        change: bytes | Payload
        if self.hand_over:
            change = Payload(
                now,
                lambda: self.method.encode_change(base, now, state.private),
                lambda: self.method.change_size(base, now, state.private),
            )
        else:
            change = self.method.encode_change(base, now, state.private)
        return Broadcast(run_id, base.round, now.round, now.hash(run_id), change)

    def open(self) -> Ballot:
        """Returns an empty ballot for the next round."""
        return Ballot(self.method.tally())

    def read_vote(self, state: ServerState, slot: int, update: Update) -> Vote:
        """Checks an answer to a training task of the round after `state`, or of one at most `late_rounds` before it.

        A vote is decoded against the public state that it was trained from, and counts whole or not at all.

        Raises:
            WrongRound: If it is for another run or slot, for a round that is not asked for, or one that the slot has
                voted for already.
            OutOfSync: If it was trained from another public state.
            MalformedFrame: If it is no canonical vote, or not the one that was hashed.
        """
        now = state.public.round + 1
        if (update.run_id, update.slot) != (self.spec.run_id, slot):
            got, wanted = (update.run_id, update.slot), (self.spec.run_id, slot)
            raise WrongRound("run and slot", got=got, wanted=wanted, where="update")
        oldest = max(now - self.late_rounds, state.voted.get(slot, 0) + 1)
        base = state.at(update.round - 1) if oldest <= update.round else None
        if base is None:
            raise WrongRound(
                "round", got=update.round, wanted=f"{oldest} .. {now}", where=f"update of slot {slot}"
            )
        self._check_state(base, slot, update.state_hash)
        vote = update.vote
        if isinstance(vote, Payload):
            content = vote.content
        else:
            content = self.method.read_vote(base, slot, vote, update.vote_hash)
        return Vote(slot, update.round, content, update.metrics)

    def take_vote(self, state: ServerState, ballot: Ballot, slot: int, update: Update) -> ServerState:
        """Counts an answer to a training task; see `read_vote` for what is refused.

        Returns:
            The state with the knowledge that the client has the public state that it voted from. A late vote is no
            news of a client.
        """
        vote = self.read_vote(state, slot, update)
        ballot.add(vote)
        return self.seen(state, slot) if vote.round > state.public.round else state

    def weights_sha256(self, state: ServerState) -> bytes:
        """Returns the hash of the weights that every client with this state must have."""
        return weights_sha256(self.method.weights(state.public))

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
        self._check_state(state.public, slot, ack.state_hash)
        if ack.weights_sha256 != weights:
            raise OutOfSync(
                "hash of the weights",
                got=ack.weights_sha256.hex(),
                wanted=weights.hex(),
                where=f"slot {slot}",
            )

    def commit(self, state: ServerState, ballot: Ballot) -> ServerState:
        """Returns the state after a round.

        Args:
            state: Before the round.
            ballot: Its votes; the order in which they came does not matter.
        """
        now = state.public
        after, private = self.method.commit(now, state.private, ballot.tally)
        past = {**state.past, now.round: now}
        return ServerState(
            public=after,
            private=private,
            known=state.known,
            voted={**state.voted, **ballot.rounds},
            past={round_: past[round_] for round_ in self._needed(after.round, state.known) & past.keys()},
        )

    def seen(self, state: ServerState, slot: int) -> ServerState:
        """Returns the state with the knowledge that a client has the public state of now."""
        return replace(state, known={**state.known, slot: state.public.round})

    def rewind(self, state: ServerState, slot: int) -> ServerState:
        """Returns the state for a client that is out of step: it gets a keyframe, the moves since round 0."""
        return replace(state, known={**state.known, slot: 0})

    def forget(self, state: ServerState, slot: int) -> ServerState:
        """Returns the state for a client that has lost its store: it gets the spec again, and a keyframe."""
        known = {s: r for s, r in state.known.items() if s != slot}
        return replace(state, known=known)

    def _needed(self, now: int, known: Mapping[int, int]) -> set[int]:
        """Returns the rounds whose states a client may still have, or a late vote may come from."""
        least = now if self.method.complete else now - self.past_rounds
        kept = {round_ for round_ in known.values() if round_ >= least}
        return {0, *kept, *range(now - self.late_rounds, now)}

    def _check_state(self, state: PublicState, slot: int, state_hash: bytes) -> None:
        wanted = state.hash(self.spec.run_id)
        if state_hash != wanted:
            raise OutOfSync("public state", got=state_hash.hex(), wanted=wanted.hex(), where=f"slot {slot}")
