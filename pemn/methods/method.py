"""What a federated method is: a frozen value of pure functions, state in and state out.

A method says what the public model is, how its changes travel down, how a client's vote is made and travels up, and
what a server learns from the votes. Who has which model, who has voted, and what is refused is the same for all of
them, and lies in `Server` and `Client`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from pemn.errors import LocalError
from pemn.federation.public import PublicState
from pemn.mask import Mask
from pemn.wire.messages import Metrics
from pemn.wire.payload import Payload
from pemn.wire.spec import Spec

Private: TypeAlias = tuple[NDArray[Any], ...]
"""What a server knows besides the public state: arrays of the method's own, which it never sends."""


class Trainer(Protocol):
    """What a client needs of a training framework."""

    def train(self, start: NDArray[Any], round_: int) -> tuple[NDArray[Any], Metrics]:
        """Trains on the client's data.

        Args:
            start: Where to start from, [n]; what it is the method says.
            round_: Which round, from 1; keys every random draw.

        Returns:
            What was trained, an array like `start` (equal to it where nothing was trained), and metrics.
        """
        ...


@dataclass(frozen=True)
class Trained:
    """What came of a client's round.

    Attributes:
        vote: What `Method.read_vote` will return of it.
        vote_hash: 8 bytes of what the vote says, where a coded vote cannot be trusted to say it; else empty.
        metrics: About the work.
        memory: What the client has to keep for its next vote, if the method needs it.
    """

    vote: Payload
    vote_hash: bytes
    metrics: Metrics
    memory: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Memory:
    """What a client of some methods keeps of its own between votes.

    Attributes:
        round: Which it has voted for last.
        earlier: What it had before that vote; None if it was the first.
        later: What it has since.
    """

    round: int
    earlier: NDArray[Any] | None
    later: NDArray[Any]

    def before(self, round_: int) -> NDArray[Any] | None:
        """Returns what a vote for a round is to be made with."""
        return self.later if round_ > self.round else self.earlier


def trained_like(start: NDArray[Any], trainer: Trainer, round_: int) -> tuple[NDArray[Any], Metrics]:
    """Lets a trainer train.

    Raises:
        LocalError: If it returns something else than an array like what it was given.
    """
    trained, metrics = trainer.train(start, round_)
    if trained.shape != start.shape or trained.dtype != start.dtype:
        wanted = (start.dtype, start.shape)
        raise LocalError("what was trained", got=(trained.dtype, trained.shape), wanted=wanted)
    return trained, metrics


class Tally(Protocol):
    """Takes the votes of a round, in any order, and comes to the same whatever that was."""

    def add(self, slot: int, vote: Any, metrics: Metrics) -> None:
        """Takes the vote of a slot, the only one of it."""
        ...


class Method(Protocol):
    """A federated method, for one run."""

    @property
    def spec(self) -> Spec:
        """The run."""
        ...

    def start(self) -> tuple[PublicState, Private]:
        """Returns the public state before the first round, which follows from the spec alone, and the private one."""
        ...

    def encode_change(self, base: PublicState, now: PublicState, private: Private) -> bytes:
        """Codes what takes a receiver from `base` to `now`.

        Args:
            base: What it has, of an earlier round or the same.
            now: What it is to have.
            private: What the server knows besides.
        """
        ...

    def change_size(self, base: PublicState, now: PublicState, private: Private) -> int:
        """Returns about how many bytes `encode_change` returns, where that is known without coding."""
        ...

    def decode_change(self, base: PublicState, change: bytes) -> NDArray[Any]:
        """Returns the values of the public state after a change.

        Raises:
            MalformedFrame: If the change is none.
        """
        ...

    @property
    def complete(self) -> bool:
        """Whether every change says all, so that it matters to nobody what its receiver has."""
        ...

    def vote(self, public: PublicState, slot: int, trainer: Trainer, memory: NDArray[Any] | None) -> Trained:
        """Trains the round after `public`.

        Args:
            public: What to start from.
            slot: Whose vote.
            trainer: Of the method's kind.
            memory: What this client has kept since its last vote, if it has one.

        Raises:
            LocalError: If the trainer returns something else than an array like what it was given.
        """
        ...

    def read_vote(self, base: PublicState, slot: int, vote: bytes, vote_hash: bytes) -> Any:
        """Returns what a vote says.

        Args:
            base: The public state that it was trained from.
            slot: Whose vote.
            vote: As `vote` codes it.
            vote_hash: As `vote` returned it.

        Raises:
            MalformedFrame: If it is no canonical vote, or not the one that was hashed.
        """
        ...

    def tally(self) -> Tally:
        """Returns an empty tally."""
        ...

    def commit(self, public: PublicState, private: Private, tally: Any) -> tuple[PublicState, Private]:
        """Returns both states after a round.

        Args:
            public: Before it.
            private: Before it.
            tally: Of its votes.
        """
        ...

    def released(self, public: PublicState, private: Private) -> PublicState:
        """Returns the public state that would be shared if the run ended now: that of the model that it leaves.

        After the run's last round the shared state is it.
        """
        ...

    def check_private(self, private: Private) -> None:
        """Checks the values of private arrays that come from a file.

        Raises:
            ValueError: If they can be none.
        """
        ...

    def mask(self, public: PublicState) -> Mask | None:
        """Returns the mask of the model that everybody shares; None if it is none of frozen weights."""
        ...

    def weights(self, public: PublicState) -> NDArray[Any]:
        """Returns the weights of the model that everybody shares: float32 [n]."""
        ...
