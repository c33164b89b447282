"""The messages of a run: frozen values, bytes in and out.

Each class knows its protobuf form (`to_proto`) and how to check a foreign one (`from_proto`), which `parse` has
read. `decode` accepts canonical bytes only: what it returns encodes to the very bytes that came, so two different
byte strings never mean the same message. Bytes that were damaged on the way cost it one hash.

Source: docs/wire.md, "Messages".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from pemn.wire import limits
from pemn.wire.checks import check, check_hash, check_round, parse
from pemn.wire.payload import Payload
from pemn.wire.spec import Spec
from pemn.wire.v1 import messages_pb2 as pb

_CHECK_HEAD = bytes([pb.Content.CHECK_FIELD_NUMBER << 3 | 2, limits.CHECK_BYTES])
"""Tag and length of the field `check`, the last of a content."""


@dataclass(frozen=True)
class Broadcast:
    """The change of the public state from round `base_round` to round `round`.

    Attributes:
        run_id: 64-bit id of the run.
        base_round: What the receiver must have; 0 is the state that follows from the spec alone.
        round: What it has afterwards, >= base_round.
        state_hash: 16 bytes, of the state afterwards.
        change: As the method codes it (of `mask`: `pemn.federation.moves`); empty if nothing changed.
    """

    run_id: int
    base_round: int
    round: int
    state_hash: bytes
    change: bytes | Payload

    def to_proto(self) -> pb.Broadcast:
        """Returns the protobuf form."""
        return pb.Broadcast(
            run_id=self.run_id,
            base_round=self.base_round,
            round=self.round,
            state_hash=self.state_hash,
            change=bytes(self.change),
        )

    @classmethod
    def from_proto(cls, proto: pb.Broadcast) -> Broadcast:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        check_round(proto.round)
        check(proto.base_round <= proto.round, "base round", got=proto.base_round, wanted=f"<= {proto.round}")
        change = proto.change  # every access is another copy
        check(not (change and proto.base_round == proto.round), "change from a round to itself")
        check_hash(proto.state_hash, limits.STATE_HASH_BYTES, "state hash")
        return cls(proto.run_id, proto.base_round, proto.round, proto.state_hash, change)


@dataclass(frozen=True)
class Metrics:
    """What a client says about its own work, in integers.

    Attributes:
        num_images: Images it trained on.
        loss_milli: Mean training loss of the last epoch, in thousandths.
        train_ms: Time it took, in milliseconds.
    """

    num_images: int
    loss_milli: int
    train_ms: int


@dataclass(frozen=True)
class Update:
    """A client's vote.

    Attributes:
        run_id: 64-bit id of the run.
        round: Which round it votes in.
        slot: Who votes.
        state_hash: 16 bytes, of the public state that it was trained from.
        vote: As the method codes it (of `mask`: `pemn.federation.flips`).
        vote_hash: 8 bytes, of what the coded vote says; empty where the method needs none.
        metrics: About its work.
        signature: 64 bytes, of `signed`; empty where clients are not enrolled.
    """

    run_id: int
    round: int
    slot: int
    state_hash: bytes
    vote: bytes | Payload
    vote_hash: bytes
    metrics: Metrics
    signature: bytes = b""

    def signed(self, client_id: bytes, num_bits: int) -> bytes:
        """Returns what a client's signature is of.

        Args:
            client_id: 16 bytes.
            num_bits: Of the network's mask.

        Source: docs/wire.md, "Update".
        """
        unsigned = replace(self, signature=b"").to_proto().SerializeToString()
        return b"".join(
            (
                b"pemn update",
                self.run_id.to_bytes(8, "little"),
                self.round.to_bytes(4, "little"),
                self.slot.to_bytes(4, "little"),
                self.state_hash,
                client_id,
                num_bits.to_bytes(8, "little"),
                hashlib.sha256(unsigned).digest(),
            )
        )

    def to_proto(self) -> pb.Update:
        """Returns the protobuf form."""
        metrics = pb.Metrics(
            num_images=self.metrics.num_images,
            loss_milli=self.metrics.loss_milli,
            train_ms=self.metrics.train_ms,
        )
        return pb.Update(
            run_id=self.run_id,
            round=self.round,
            slot=self.slot,
            state_hash=self.state_hash,
            vote=bytes(self.vote),
            vote_hash=self.vote_hash,
            metrics=metrics,
            signature=self.signature,
        )

    @classmethod
    def from_proto(cls, proto: pb.Update) -> Update:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        check_round(proto.round)
        check(proto.slot < limits.MAX_SLOTS, "slot", got=proto.slot)
        check_hash(proto.state_hash, limits.STATE_HASH_BYTES, "state hash")
        vote = proto.vote  # every access is another copy
        check(len(vote) > 0, "update without a vote")
        if proto.vote_hash:  # the method says whether there must be one
            check_hash(proto.vote_hash, limits.VOTE_HASH_BYTES, "hash of the vote")
        check(proto.HasField("metrics"), "update without metrics")
        metrics = Metrics(proto.metrics.num_images, proto.metrics.loss_milli, proto.metrics.train_ms)
        if proto.signature:  # whoever takes updates says whether there must be one
            check_hash(proto.signature, limits.SIGNATURE_BYTES, "signature")
        return cls(
            proto.run_id,
            proto.round,
            proto.slot,
            proto.state_hash,
            vote,
            proto.vote_hash,
            metrics,
            proto.signature,
        )


@dataclass(frozen=True)
class Ack:
    """A client has applied a broadcast.

    Attributes:
        run_id: 64-bit id of the run.
        round: Round of the public state that it has now.
        slot: Who answers.
        state_hash: 16 bytes, of that state.
        weights_sha256: 32 bytes, of the weights that it rebuilt from it.
    """

    run_id: int
    round: int
    slot: int
    state_hash: bytes
    weights_sha256: bytes

    def to_proto(self) -> pb.Ack:
        """Returns the protobuf form."""
        return pb.Ack(
            run_id=self.run_id,
            round=self.round,
            slot=self.slot,
            state_hash=self.state_hash,
            weights_sha256=self.weights_sha256,
        )

    @classmethod
    def from_proto(cls, proto: pb.Ack) -> Ack:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        check_round(proto.round)
        check(proto.slot < limits.MAX_SLOTS, "slot", got=proto.slot)
        check_hash(proto.state_hash, limits.STATE_HASH_BYTES, "state hash")
        check_hash(proto.weights_sha256, limits.SHA256_BYTES, "hash of the weights")
        return cls(proto.run_id, proto.round, proto.slot, proto.state_hash, proto.weights_sha256)


@dataclass(frozen=True)
class Failure:
    """A task could not be done.

    Attributes:
        code: A stable code of `pemn.errors`.
        text: One line for a person.
    """

    code: int
    text: str

    def to_proto(self) -> pb.Error:
        """Returns the protobuf form; a long text is cut."""
        # A path in the text may hold bytes that are no UTF-8, as lone surrogates.
        text = self.text.encode(errors="replace")[: limits.MAX_ERROR_TEXT_BYTES].decode(errors="ignore")
        return pb.Error(code=self.code, text=text)

    @classmethod
    def from_proto(cls, proto: pb.Error) -> Failure:
        """Takes a foreign message; `parse` has bounded its text."""
        return cls(proto.code, proto.text)


@dataclass(frozen=True)
class Content:
    """What goes between server and client: a task or the answer to one.

    A task is a broadcast, with the spec before it for a client that does not have it. An answer is exactly one of
    update, acknowledgement and failure.
    """

    spec: Spec | None = None
    broadcast: Broadcast | None = None
    update: Update | None = None
    ack: Ack | None = None
    error: Failure | None = None

    def to_proto(self) -> pb.Content:
        """Returns the protobuf form, without the check."""
        return pb.Content(
            spec=self.spec.to_proto() if self.spec else None,
            broadcast=self.broadcast.to_proto() if self.broadcast else None,
            update=self.update.to_proto() if self.update else None,
            ack=self.ack.to_proto() if self.ack else None,
            error=self.error.to_proto() if self.error else None,
        )


def encode(content: Content) -> bytes:
    """Returns the canonical bytes of a task or an answer."""
    body = content.to_proto().SerializeToString(deterministic=True)
    return body + _CHECK_HEAD + _check_of(body)


def decode(data: bytes) -> Content:
    """Reads a task or an answer.

    Args:
        data: The bytes; the caller has bounded their length by `limits.max_task_bytes` or
            `limits.max_answer_bytes`.

    Raises:
        MalformedFrame: If the bytes are damaged, or not one canonical message within the limits.
        WrongProtocol: If they hold a spec of another protocol version.
    """
    proto = _parse(data)
    present = {field.name for field, _ in proto.ListFields()} - {"check"}
    answer = len(present) == 1 and present <= {"update", "ack", "error"}
    check(answer or present in ({"broadcast"}, {"spec", "broadcast"}), "parts", got=sorted(present))
    return Content(
        spec=Spec.from_proto(proto.spec) if proto.HasField("spec") else None,
        broadcast=Broadcast.from_proto(proto.broadcast) if proto.HasField("broadcast") else None,
        update=Update.from_proto(proto.update) if proto.HasField("update") else None,
        ack=Ack.from_proto(proto.ack) if proto.HasField("ack") else None,
        error=Failure.from_proto(proto.error) if proto.HasField("error") else None,
    )


def num_bytes_by_kind(data: bytes) -> dict[str, int]:
    """Returns how many bytes of an encoded content each message in it takes, for the ledger.

    The rest is the content's own: tag and length of each message, and the check.

    Raises:
        MalformedFrame: If the bytes are no content.
    """
    fields = _parse(data).ListFields()
    return {field.name: message.ByteSize() for field, message in fields if field.name != "check"}


def _parse(data: bytes) -> pb.Content:
    """Reads a content whose check is right; nothing else of damaged bytes is looked at."""
    start = len(data) - len(_CHECK_HEAD) - limits.CHECK_BYTES
    whole = data[start:] == _CHECK_HEAD + _check_of(memoryview(data)[:start])
    check(whole, "check of a content: it is cut off or damaged", got=f"{len(data)} bytes")
    proto = pb.Content()
    parse(proto, data)
    # Or those last bytes are part of another field, whose length reaches over them.
    check_hash(proto.check, limits.CHECK_BYTES, "check of a content")
    return proto


def _check_of(body: bytes | memoryview) -> bytes:
    return hashlib.sha256(body).digest()[: limits.CHECK_BYTES]
