"""The checked messages: frozen values, bytes in and out.

Each class knows its protobuf form (`to_proto`) and how to check a foreign one (`from_proto`). `decode` accepts
canonical bytes only: what it returns encodes to the very bytes that came, so two different byte strings never
mean the same message.

Source: docs/wire.md, "Messages".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pemn.errors import ConfigError, LocalError, MalformedFrame, WrongProtocol
from pemn.prototype import Strategy
from pemn.spec import InputContract, Layer, ModelSpec
from pemn.wire import limits
from pemn.wire.v1 import messages_pb2 as pb


def check(right: bool, what: str, *, got: object = None, wanted: object = None) -> None:
    """Refuses a message whose field is wrong.

    Raises:
        MalformedFrame: If not `right`.
    """
    if not right:
        raise MalformedFrame(what, got=got, wanted=wanted)


def _check_text(text: str, what: str) -> None:
    check(0 < len(text.encode()) <= limits.MAX_TEXT_BYTES, f"length of {what}")


def _check_hash(value: bytes, num_bytes: int, what: str) -> None:
    check(len(value) == num_bytes, f"length of {what}", got=len(value), wanted=num_bytes)


def _check_round(value: int) -> None:
    check(value <= limits.MAX_ROUND, "round", got=value, wanted=f"<= {limits.MAX_ROUND}")


def model_to_proto(model: ModelSpec) -> pb.ModelSpec:
    """Returns the protobuf form of a network."""
    contract = pb.InputContract(
        shape=model.input.shape,
        mean=model.input.mean,
        std=model.input.std,
        class_names=model.input.class_names,
    )
    layers = [pb.Layer(name=v.name, shape=v.shape, scale=v.scale) for v in model.layers]
    return pb.ModelSpec(
        architecture=model.architecture,
        input=contract,
        layers=layers,
        seed=model.seed,
        strategy=str(model.strategy),
    )


def model_from_proto(proto: pb.ModelSpec) -> ModelSpec:
    """Checks a network that came from outside.

    Raises:
        MalformedFrame: If a field is missing, out of bounds or not in canonical form.
    """
    _check_text(proto.architecture, "architecture")
    check(0 < len(proto.layers) <= limits.MAX_LAYERS, "number of layers", got=len(proto.layers))
    num_params = 0
    for layer in proto.layers:
        _check_text(layer.name, "layer name")
        check(0 < len(layer.shape) <= limits.MAX_DIMENSIONS, "layer shape", got=list(layer.shape))
        num_params += math.prod(layer.shape)
        check(num_params <= limits.MAX_PARAMS, "number of weights", wanted=f"<= {limits.MAX_PARAMS}")
    contract = proto.input
    check(len(contract.shape) == 3, "input shape", got=list(contract.shape), wanted="3 sizes")
    check(0 < contract.shape[0] <= limits.MAX_CHANNELS, "channels", got=contract.shape[0])
    pixels = math.prod(contract.shape)
    check(0 < pixels <= limits.MAX_PARAMS, "input size", got=pixels)
    check(0 < len(contract.class_names) <= limits.MAX_CLASSES, "number of classes")
    for name in contract.class_names:
        _check_text(name, "class name")
    try:
        model = ModelSpec(
            architecture=proto.architecture,
            input=InputContract(
                shape=(contract.shape[0], contract.shape[1], contract.shape[2]),
                mean=tuple(contract.mean),
                std=tuple(contract.std),
                class_names=tuple(contract.class_names),
            ),
            layers=tuple(Layer(v.name, tuple(v.shape), v.scale) for v in proto.layers),
            seed=proto.seed,
            strategy=Strategy.parse(proto.strategy),
        )
    except (LocalError, ConfigError) as error:
        raise MalformedFrame(f"network: {error}") from error
    check(str(model.strategy) == proto.strategy, "spelling of the strategy", got=proto.strategy)
    return model


@dataclass(frozen=True)
class MaskProtocol:
    """How the public state moves.

    Attributes:
        step: Distance of two levels of q, in 1/65536, 1 .. 65535.
        eta_num: p_hat moves by eta_num / (eta_den * K) a vote, 1 .. 65535.
        eta_den: See `eta_num`, 1 .. 65535.
        start_levels: Lower half of the symmetric table of start levels, ascending, each 66 .. 32768; the upper half
            is 65536 minus these. Empty: every weight starts at 1/2.
    """

    step: int
    eta_num: int
    eta_den: int
    start_levels: tuple[int, ...]

    def to_proto(self) -> pb.MaskProtocol:
        """Returns the protobuf form."""
        before = (0, *self.start_levels[:-1])
        deltas = [b - a for a, b in zip(before, self.start_levels, strict=False)]
        return pb.MaskProtocol(
            step=self.step, eta_num=self.eta_num, eta_den=self.eta_den, start_level_deltas=deltas
        )

    @classmethod
    def from_proto(cls, proto: pb.MaskProtocol) -> MaskProtocol:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        for name in ("step", "eta_num", "eta_den"):
            value = getattr(proto, name)
            check(1 <= value <= 65535, name, got=value, wanted="1 .. 65535")
        count = len(proto.start_level_deltas)
        power_of_two = count & (count - 1) == 0
        check(power_of_two and 2 * count <= limits.MAX_START_LEVELS, "start levels", got=count)
        levels, level = [], 0
        for delta in proto.start_level_deltas:
            level += delta
            levels.append(level)
        check(not levels or (levels[0] >= 66 and level <= 32768), "start levels", got=level)
        return cls(proto.step, proto.eta_num, proto.eta_den, tuple(levels))


@dataclass(frozen=True)
class LocalTraining:
    """What a client does in a round.

    Attributes:
        epochs: Passes over its data, >= 1.
        batch_size: Images a step, >= 1.
        learning_rate: Adam's, on the scores, > 0; a float32.
    """

    epochs: int
    batch_size: int
    learning_rate: float

    def to_proto(self) -> pb.LocalTraining:
        """Returns the protobuf form."""
        return pb.LocalTraining(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate
        )

    @classmethod
    def from_proto(cls, proto: pb.LocalTraining) -> LocalTraining:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        check(1 <= proto.epochs <= 10_000, "epochs", got=proto.epochs, wanted="1 .. 10000")
        check(1 <= proto.batch_size <= 1 << 20, "batch size", got=proto.batch_size)
        check(0 < proto.learning_rate <= 1000, "learning rate", got=proto.learning_rate)
        return cls(proto.epochs, proto.batch_size, proto.learning_rate)


@dataclass(frozen=True)
class DataPlan:
    """Whose data is whose.

    Attributes:
        dataset: Name that both ends know.
        partition: `iid`, `dirichlet:A` or `classes:C`.
        num_slots: Number of shares, N.
    """

    dataset: str
    partition: str
    num_slots: int

    def to_proto(self) -> pb.DataPlan:
        """Returns the protobuf form."""
        return pb.DataPlan(dataset=self.dataset, partition=self.partition, num_slots=self.num_slots)

    @classmethod
    def from_proto(cls, proto: pb.DataPlan) -> DataPlan:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        _check_text(proto.dataset, "data set")
        _check_text(proto.partition, "partition")
        check(1 <= proto.num_slots <= limits.MAX_SLOTS, "slots", got=proto.num_slots)
        return cls(proto.dataset, proto.partition, proto.num_slots)


@dataclass(frozen=True)
class Spec:
    """Sent once to every client: all that it needs to take part."""

    run_id: int
    model: ModelSpec
    protocol: MaskProtocol
    training: LocalTraining
    data: DataPlan

    def to_proto(self) -> pb.Spec:
        """Returns the protobuf form."""
        return pb.Spec(
            protocol_version=limits.PROTOCOL_VERSION,
            run_id=self.run_id,
            model=model_to_proto(self.model),
            protocol=self.protocol.to_proto(),
            training=self.training.to_proto(),
            data=self.data.to_proto(),
        )

    @classmethod
    def from_proto(cls, proto: pb.Spec) -> Spec:
        """Checks a foreign message.

        Raises:
            WrongProtocol: If it is of another protocol version.
            MalformedFrame: If a field is missing or out of bounds.
        """
        if proto.protocol_version != limits.PROTOCOL_VERSION:
            raise WrongProtocol(
                "protocol version", got=proto.protocol_version, wanted=limits.PROTOCOL_VERSION, where="spec"
            )
        return cls(
            run_id=proto.run_id,
            model=model_from_proto(proto.model),
            protocol=MaskProtocol.from_proto(proto.protocol),
            training=LocalTraining.from_proto(proto.training),
            data=DataPlan.from_proto(proto.data),
        )

    def to_bytes(self) -> bytes:
        """Returns the encoded message, as it is kept in a client's store."""
        return self.to_proto().SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Spec:
        """Reads what `to_bytes` wrote.

        Raises:
            MalformedFrame: If the bytes are not a canonical spec.
            WrongProtocol: If it is of another protocol version.
        """
        check(len(data) <= limits.MAX_SPEC_BYTES, "length of the spec", got=len(data))
        proto = pb.Spec()
        parse(proto, data)
        return cls.from_proto(proto)


@dataclass(frozen=True)
class Broadcast:
    """The change of the public state from round `base_round` to round `round`.

    Attributes:
        run_id: 64-bit id of the run.
        base_round: What the receiver must have; 0 is the state that follows from the spec alone.
        round: What it has afterwards, >= base_round.
        state_hash: 16 bytes, of the state afterwards.
        moves: Coded planes of moves (`pemn.federation.moves`); empty if nothing moved.
    """

    run_id: int
    base_round: int
    round: int
    state_hash: bytes
    moves: bytes

    def to_proto(self) -> pb.Broadcast:
        """Returns the protobuf form."""
        return pb.Broadcast(
            run_id=self.run_id,
            base_round=self.base_round,
            round=self.round,
            state_hash=self.state_hash,
            moves=self.moves,
        )

    @classmethod
    def from_proto(cls, proto: pb.Broadcast) -> Broadcast:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        _check_round(proto.round)
        check(proto.base_round <= proto.round, "base round", got=proto.base_round, wanted=f"<= {proto.round}")
        check(not (proto.moves and proto.base_round == proto.round), "moves from a round to itself")
        _check_hash(proto.state_hash, limits.STATE_HASH_BYTES, "state hash")
        return cls(proto.run_id, proto.base_round, proto.round, proto.state_hash, proto.moves)


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
        flips: Coded flip mask (`pemn.federation.flips`).
        metrics: About its work.
    """

    run_id: int
    round: int
    slot: int
    state_hash: bytes
    flips: bytes
    metrics: Metrics

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
            flips=self.flips,
            metrics=metrics,
        )

    @classmethod
    def from_proto(cls, proto: pb.Update) -> Update:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        _check_round(proto.round)
        check(proto.slot < limits.MAX_SLOTS, "slot", got=proto.slot)
        _check_hash(proto.state_hash, limits.STATE_HASH_BYTES, "state hash")
        check(len(proto.flips) > 0, "update without flips")
        metrics = Metrics(proto.metrics.num_images, proto.metrics.loss_milli, proto.metrics.train_ms)
        return cls(proto.run_id, proto.round, proto.slot, proto.state_hash, proto.flips, metrics)


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
        _check_round(proto.round)
        check(proto.slot < limits.MAX_SLOTS, "slot", got=proto.slot)
        _check_hash(proto.state_hash, limits.STATE_HASH_BYTES, "state hash")
        _check_hash(proto.weights_sha256, limits.SHA256_BYTES, "hash of the weights")
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
        text = self.text.encode()[: limits.MAX_ERROR_TEXT_BYTES].decode(errors="ignore")
        return pb.Error(code=self.code, text=text)

    @classmethod
    def from_proto(cls, proto: pb.Error) -> Failure:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        check(len(proto.text.encode()) <= limits.MAX_ERROR_TEXT_BYTES, "length of an error text")
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
        """Returns the protobuf form."""
        return pb.Content(
            spec=self.spec.to_proto() if self.spec else None,
            broadcast=self.broadcast.to_proto() if self.broadcast else None,
            update=self.update.to_proto() if self.update else None,
            ack=self.ack.to_proto() if self.ack else None,
            error=self.error.to_proto() if self.error else None,
        )


def encode(content: Content) -> bytes:
    """Returns the canonical bytes of a task or an answer."""
    return content.to_proto().SerializeToString(deterministic=True)


def decode(data: bytes) -> Content:
    """Reads a task or an answer.

    Args:
        data: The bytes; the caller has bounded their length by `limits.max_content_bytes`.

    Raises:
        MalformedFrame: If the bytes are not one canonical message within the limits.
        WrongProtocol: If they hold a spec of another protocol version.
    """
    proto = pb.Content()
    parse(proto, data)
    present = {field.name for field, _ in proto.ListFields()}
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

    Raises:
        MalformedFrame: If the bytes are no content.
    """
    proto = pb.Content()
    parse(proto, data)
    return {field.name: message.ByteSize() for field, message in proto.ListFields()}


def parse(proto: pb.Content | pb.Spec | pb.Artifact, data: bytes) -> None:
    """Reads canonical bytes.

    Raises:
        MalformedFrame: If they are no message, or not its canonical form.
    """
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise MalformedFrame("not a message", got=f"{len(data)} bytes") from error
    proto.DiscardUnknownFields()  # type: ignore[no-untyped-call]  # else they would survive the comparison
    check(proto.SerializeToString(deterministic=True) == data, "not in canonical form")
