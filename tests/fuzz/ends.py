"""Who receives frames: a server, a client, a reader of files or of a stored spec. What they take says what it means."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pemn.artifact import Artifact
from pemn.errors import MalformedArtifact, MalformedFrame, RemoteError, every_error
from pemn.federation.flips import Draw, encode_flips
from pemn.federation.levels import Levels
from pemn.federation.public import PublicState
from pemn.methods import Client, Server, ServerState, Trainer
from pemn.methods.ballot import Vote
from pemn.wire.limits import SHA256_BYTES, max_answer_bytes, max_task_bytes
from pemn.wire.messages import Broadcast, Content, Metrics, Update, decode, encode
from pemn.wire.spec import Spec
from pemn.wire.v1 import messages_pb2 as pb
from pemn_client.node import QUERY, Node
from pemn_client.store import MemoryStore

LARGEST_STATE = 1 << 17
"""Weights: for a larger network, which a mutated spec may name, no public state is made here, as it has n bytes."""

_HEAD_BYTES = 6  # of a file


class Taken(Protocol):
    """What an end has accepted."""

    def canonical(self) -> bytes:
        """Returns the message, encoded anew from what was understood of it."""
        ...

    def meaning(self) -> bytes:
        """Returns a hash of what was understood."""
        ...


class End(Protocol):
    """Who may take a frame."""

    @property
    def num_params(self) -> int:
        """n of the network whose frames it expects."""
        ...

    def take(self, data: bytes) -> Taken:
        """Takes a frame as the application does, or refuses it with `refusal`."""
        ...

    @property
    def refusal(self) -> type[Exception]:
        """The one kind of error that may come of any bytes."""
        ...


@dataclass(frozen=True)
class Said:
    """A content that says all by itself."""

    content: Content

    def canonical(self) -> bytes:
        return encode(self.content)

    def meaning(self) -> bytes:
        return _hash(self.content)


@dataclass(frozen=True)
class CountedVote:
    """A vote that was added to a ballot."""

    update: Update
    vote: Vote

    def canonical(self) -> bytes:
        update, flips = self.update, self.vote.content
        again = replace(
            update,
            vote=encode_flips(flips),
            vote_hash=flips.hash(update.state_hash),
            metrics=self.vote.metrics,
        )
        return encode(Content(update=again))

    def meaning(self) -> bytes:
        flips = self.vote.content
        said = replace(self.update, vote=b"", vote_hash=b"")
        return _hash(said, flips.mask.tobytes())


@dataclass(frozen=True, eq=False)
class AppliedTask:
    """A broadcast that was applied, with the spec that may have come with it."""

    content: Content
    client: Client
    base: PublicState
    after: PublicState

    def canonical(self) -> bytes:
        run_id, after = self.client.spec.run_id, self.after
        change = self.client.method.encode_change(self.base, after, ())
        again = Broadcast(run_id, self.base.round, after.round, after.hash(run_id), change)
        return encode(replace(self.content, broadcast=again))

    def meaning(self) -> bytes:
        assert self.content.broadcast is not None
        said = replace(self.content, broadcast=replace(self.content.broadcast, change=b""))
        return _hash(said, self.after.values.tobytes())


@dataclass(frozen=True)
class ServerEnd:
    """A server that has asked a client for something, and gets the answer.

    Attributes:
        server: The server's half.
        state: What it has learnt so far.
        slot: Who answers.
        weights: Hash of the weights of `state`.
    """

    server: Server
    state: ServerState
    slot: int
    weights: bytes
    refusal: type[Exception] = RemoteError

    @property
    def num_params(self) -> int:
        return self.server.spec.model.num_params

    def draw(self, round_: int) -> Draw | None:
        """Returns what a vote of this round is read with, if the server still knows."""
        base = self.state.at(round_ - 1)
        return None if base is None else Draw(Levels.of(self.server.spec), base.values, round_, self.slot)

    def take(self, data: bytes) -> Taken:
        content = _decode(data, max_answer_bytes(self.num_params))
        if content.update is not None:
            vote = self.server.read_vote(self.state, self.slot, content.update)
            self.server.open().add(vote)
            return CountedVote(content.update, vote)
        if content.ack is not None:
            self.server.check_ack(self.state, self.slot, content.ack, self.weights)
        elif content.error is None:
            raise MalformedFrame("task instead of an answer")
        return Said(content)


@dataclass(frozen=True, eq=False)
class ClientEnd:
    """A client that gets a task: the node that `pemn-client` runs, with what its store holds.

    Attributes:
        slot: Its number.
        known: n of the run that it takes part in, or will.
        client: Its half of the run; none if it is new.
        state: What it has; none if it is new.
    """

    slot: int
    known: int
    client: Client | None = None
    state: PublicState | None = None
    refusal: type[Exception] = RemoteError

    @property
    def num_params(self) -> int:
        return self.known

    def take(self, data: bytes) -> Taken:
        content = _decode(data, max_task_bytes(self.num_params))
        if content.spec is not None and content.spec.model.num_params > LARGEST_STATE:
            return Said(replace(content, spec=Client.of(content.spec, self.slot).spec))
        store = MemoryStore()
        if self.client is not None:
            store.save_spec(self.client.spec)
            if self.state is not None:
                store.save_state(self.client.spec, self.state)
        had = store.load()
        answer = Node(self.slot, store, _no_trainer).handle(QUERY, content)
        has = store.load()
        if answer.error is not None:
            assert has == had, "a refused task has changed the store"
            raise every_error()[answer.error.code](answer.error.text)
        assert content.broadcast is not None
        assert has is not None
        spec, after = has
        client = Client.of(spec, self.slot)
        state = self.state if had is not None and spec == had[0] else None
        if (
            after is None or after is state
        ):  # it had that round before, or nothing is to be had: no moves were read
            return Said(content)
        base = state if content.broadcast.base_round and state else client.start()
        return AppliedTask(content, client, base, after)


def _no_trainer(spec: Spec, slot: int) -> Trainer:
    """A query trains nothing."""
    return _Untrained()


class _Untrained:
    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        raise NotImplementedError


@dataclass(frozen=True)
class StoreEnd:
    """A client that opens the spec in its store."""

    slot: int
    num_params: int
    refusal: type[Exception] = RemoteError

    def take(self, data: bytes) -> Taken:
        return KeptSpec(Client.of(Spec.from_bytes(data), self.slot).spec)


@dataclass(frozen=True)
class KeptSpec:
    """A spec that a client can take part with."""

    spec: Spec

    def canonical(self) -> bytes:
        return self.spec.to_bytes()

    def meaning(self) -> bytes:
        return _hash(self.spec)


@dataclass(frozen=True)
class FileEnd:
    """A device that opens a .pemn file."""

    num_params: int
    refusal: type[Exception] = MalformedArtifact

    def take(self, data: bytes) -> Taken:
        artifact = Artifact.from_bytes(data)
        artifact.tensors()
        return OpenedFile(artifact, data)


@dataclass(frozen=True)
class OpenedFile:
    """A .pemn file that was read. DEFLATE has no canonical form: of its bytes only the end is held to one."""

    artifact: Artifact
    data: bytes

    def canonical(self) -> bytes:
        again = self.artifact.to_bytes()
        proto = pb.Artifact.FromString(again[_HEAD_BYTES:-SHA256_BYTES])
        proto.onnx_skeleton = self._deflated()
        body = again[:_HEAD_BYTES] + proto.SerializeToString(deterministic=True)
        return body + hashlib.sha256(body).digest()

    def meaning(self) -> bytes:
        artifact = self.artifact
        parts = (
            artifact.model,
            artifact.weights_sha256,
            sorted(artifact.provenance.items()),
            artifact.start_edges,
        )
        arrays = artifact.mask.packed.tobytes(), artifact.floats, artifact.onnx_skeleton, self._deflated()
        return _hash(parts, *arrays)

    def _deflated(self) -> bytes:
        return pb.Artifact.FromString(self.data[_HEAD_BYTES:-SHA256_BYTES]).onnx_skeleton


def _decode(data: bytes, max_bytes: int) -> Content:
    if len(data) > max_bytes:  # the link refuses it before it is kept
        raise MalformedFrame("length of a content", got=len(data))
    return decode(data)


def _hash(said: object, *arrays: bytes) -> bytes:
    digest = hashlib.sha256(repr(said).encode())
    for array in arrays:
        digest.update(hashlib.sha256(array).digest())
    return digest.digest()
