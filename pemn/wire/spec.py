"""The spec of a run: what a client gets once, and can take part with.

Source: docs/wire.md, "Messages".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from pemn.errors import ConfigError, LocalError, MalformedFrame, WrongProtocol
from pemn.partition import Partition
from pemn.spec import ModelSpec
from pemn.wire import limits
from pemn.wire.checks import check, check_text, parse
from pemn.wire.model import model_from_proto, model_to_proto
from pemn.wire.v1 import messages_pb2 as pb


def _deltas(levels: tuple[int, ...]) -> list[int]:
    return [b - a for a, b in zip((0, *levels[:-1]), levels, strict=False)]


def _start_levels(deltas: Sequence[int]) -> tuple[int, ...]:
    """Returns start levels from their differences.

    Raises:
        MalformedFrame: If they are none.
    """
    count = len(deltas)
    check(count & (count - 1) == 0, "number of start levels", got=count, wanted="a power of two")
    levels = tuple(accumulate(deltas))
    check(not levels or (levels[0] >= 66 and levels[-1] <= 32768), "start levels", got=levels[-1:])
    return levels


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
        return pb.MaskProtocol(
            step=self.step,
            eta_num=self.eta_num,
            eta_den=self.eta_den,
            start_level_deltas=_deltas(self.start_levels),
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
        return cls(proto.step, proto.eta_num, proto.eta_den, _start_levels(proto.start_level_deltas))


@dataclass(frozen=True)
class FedPMProtocol:
    """How FedPM's probabilities travel.

    Attributes:
        start_levels: As in `MaskProtocol`.
    """

    start_levels: tuple[int, ...]

    def to_proto(self) -> pb.FedPMProtocol:
        """Returns the protobuf form."""
        return pb.FedPMProtocol(start_level_deltas=_deltas(self.start_levels))

    @classmethod
    def from_proto(cls, proto: pb.FedPMProtocol) -> FedPMProtocol:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        return cls(_start_levels(proto.start_level_deltas))


@dataclass(frozen=True)
class FedAvgProtocol:
    """How weights are averaged.

    Attributes:
        momentum: Of the clients' SGD, 0 .. below 1; a float32.
    """

    momentum: float

    def to_proto(self) -> pb.FedAvgProtocol:
        """Returns the protobuf form."""
        return pb.FedAvgProtocol(momentum=self.momentum)

    @classmethod
    def from_proto(cls, proto: pb.FedAvgProtocol) -> FedAvgProtocol:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        check(0 <= proto.momentum < 1, "momentum", got=proto.momentum)
        return cls(proto.momentum)


@dataclass(frozen=True)
class StcProtocol:
    """Sparse ternary compression.

    Attributes:
        momentum: Of the clients' SGD, 0 .. below 1; a float32.
        share: Of the weights that a message changes, above 0 .. 1; a float32.
    """

    momentum: float
    share: float

    def to_proto(self) -> pb.StcProtocol:
        """Returns the protobuf form."""
        return pb.StcProtocol(momentum=self.momentum, share=self.share)

    @classmethod
    def from_proto(cls, proto: pb.StcProtocol) -> StcProtocol:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        check(0 <= proto.momentum < 1, "momentum", got=proto.momentum)
        check(0 < proto.share <= 1, "share of the weights", got=proto.share)
        return cls(proto.momentum, proto.share)


MethodProtocol: TypeAlias = MaskProtocol | FedPMProtocol | FedAvgProtocol | StcProtocol
"""What makes a run's method, and its settings."""


@dataclass(frozen=True)
class LocalTraining:
    """What a client does in a round.

    Attributes:
        epochs: Passes over its data, >= 1.
        batch_size: Images a step, >= 1.
        learning_rate: Adam's on scores, SGD's on weights; > 0, a float32.
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


_PROTOCOLS: dict[str, type[MaskProtocol] | type[FedPMProtocol] | type[FedAvgProtocol] | type[StcProtocol]] = {
    "mask": MaskProtocol,
    "fedpm": FedPMProtocol,
    "fedpm-counts": FedPMProtocol,
    "fedavg": FedAvgProtocol,
    "fedavg-int8": FedAvgProtocol,
    "stc": StcProtocol,
}
METHODS = tuple(_PROTOCOLS)
"""The methods that a run can have."""


@dataclass(frozen=True)
class Spec:
    """Sent once to every client: all that it needs to take part.

    Attributes:
        run_id: 64-bit id of the run.
        model: The network.
        protocol: Settings of the method.
        training: What a client does in a round.
        data: Whose data is whose.
        method: One of METHODS.
    """

    run_id: int
    model: ModelSpec
    protocol: MethodProtocol
    training: LocalTraining
    data: DataPlan
    method: str = "mask"

    def __post_init__(self) -> None:
        """Checks that method and settings belong together."""
        if type(self.protocol) is not _PROTOCOLS.get(self.method):
            raise LocalError("settings of a method", got=type(self.protocol).__name__, wanted=self.method)

    @property
    def mask(self) -> MaskProtocol:
        """How the public state of the `mask` method moves.

        Raises:
            LocalError: If the run is one of another method.
        """
        if not isinstance(self.protocol, MaskProtocol):
            raise LocalError("method of the run", got=type(self.protocol).__name__, wanted="mask")
        return self.protocol

    def to_proto(self) -> pb.Spec:
        """Returns the protobuf form."""
        proto = pb.Spec(
            protocol_version=limits.PROTOCOL_VERSION,
            run_id=self.run_id,
            model=model_to_proto(self.model),
            training=self.training.to_proto(),
            data=self.data.to_proto(),
        )
        getattr(proto, self.method.replace("-", "_")).CopyFrom(self.protocol.to_proto())
        return proto

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
        name = proto.WhichOneof("method")
        if name is None:
            raise MalformedFrame("spec without a method")
        method = name.replace("_", "-")
        return cls(
            run_id=proto.run_id,
            model=model,
            protocol=_PROTOCOLS[method].from_proto(getattr(proto, name)),
            training=LocalTraining.from_proto(proto.training),
            data=DataPlan.from_proto(proto.data, model.num_classes),
            method=method,
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
