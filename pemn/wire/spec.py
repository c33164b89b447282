"""The spec of a run: what a client gets once, and can take part with.

Source: docs/wire.md, "Messages".
"""

from __future__ import annotations

from dataclasses import dataclass

from pemn.errors import ConfigError, MalformedFrame, WrongProtocol
from pemn.partition import Partition
from pemn.spec import ModelSpec
from pemn.wire import limits
from pemn.wire.checks import check, check_text, parse
from pemn.wire.model import model_from_proto, model_to_proto
from pemn.wire.v1 import messages_pb2 as pb


@dataclass(frozen=True)
class MaskProtocol:
    """How the public state moves.

    Attributes:
        step: Distance of two levels of q, in 1/65536, MIN_STEP .. 65535.
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
        for name, least in (("step", limits.MIN_STEP), ("eta_num", 1), ("eta_den", 1)):
            value = getattr(proto, name)
            check(least <= value <= 65535, name, got=value, wanted=f"{least} .. 65535")
        count = len(proto.start_level_deltas)
        check(count & (count - 1) == 0, "number of start levels", got=count, wanted="a power of two")
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
        check(1 <= proto.epochs <= limits.MAX_EPOCHS, "epochs", got=proto.epochs)
        check(1 <= proto.batch_size <= limits.MAX_BATCH_SIZE, "batch size", got=proto.batch_size)
        check(0 < proto.learning_rate <= limits.MAX_LEARNING_RATE, "learning rate", got=proto.learning_rate)
        return cls(proto.epochs, proto.batch_size, proto.learning_rate)


@dataclass(frozen=True)
class DataPlan:
    """Whose data is whose.

    Attributes:
        dataset: Name that both ends know.
        partition: How its images are dealt out, spelt as `str(Partition)` does.
        num_slots: Number of shares.
    """

    dataset: str
    partition: str
    num_slots: int

    def to_proto(self) -> pb.DataPlan:
        """Returns the protobuf form."""
        return pb.DataPlan(dataset=self.dataset, partition=self.partition, num_slots=self.num_slots)

    @classmethod
    def from_proto(cls, proto: pb.DataPlan, num_classes: int) -> DataPlan:
        """Checks a foreign message.

        Args:
            proto: The message.
            num_classes: Of the network: a Dirichlet partition costs time for every slot and class.

        Raises:
            MalformedFrame: If a field is out of bounds, or the partition not in its one spelling.
        """
        check_text(proto.dataset, "data set")
        check(1 <= proto.num_slots <= limits.MAX_SLOTS, "slots", got=proto.num_slots)
        try:
            partition = Partition.parse(proto.partition)
        except ConfigError as error:
            raise MalformedFrame(str(error)) from error
        check(
            str(partition) == proto.partition,
            "spelling of the partition",
            got=proto.partition,
            wanted=partition,
        )
        num_variates = proto.num_slots * num_classes if partition.kind == "dirichlet" else 0
        check(
            num_variates <= limits.MAX_GAMMA_VARIATES,
            f"slots times classes of {partition}",
            got=num_variates,
            wanted=f"<= {limits.MAX_GAMMA_VARIATES}",
        )
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
        check(
            not proto.model.floats,
            "floats of a network in a federation",
            got=len(proto.model.floats),
            wanted=0,
        )
        model = model_from_proto(proto.model)
        return cls(
            run_id=proto.run_id,
            model=model,
            protocol=MaskProtocol.from_proto(proto.protocol),
            training=LocalTraining.from_proto(proto.training),
            data=DataPlan.from_proto(proto.data, model.num_classes),
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
