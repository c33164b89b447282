"""The spec of a run: what a client gets once, and can take part with.

Source: docs/wire.md, "Messages".
"""

from __future__ import annotations

from dataclasses import dataclass

from pemn.errors import ConfigError, LocalError, MalformedFrame, WrongProtocol
from pemn.partition import Partition
from pemn.schedule import Schedule
from pemn.spec import ModelSpec
from pemn.wire import limits
from pemn.wire.checks import check, check_round, check_text, is_minus_zero, parse
from pemn.wire.model import model_from_proto, model_to_proto
from pemn.wire.protocols import (
    FedAvgProtocol,
    FedPMProtocol,
    MaskProtocol,
    MethodProtocol,
    StcProtocol,
    rates,
    read_rates,
)
from pemn.wire.v1 import messages_pb2 as pb


@dataclass(frozen=True)
class LocalTraining:
    """What a client does in a round.

    Attributes:
        epochs: Passes over its data, >= 1.
        batch_size: Images a step, >= 1.
        learning_rate: Adam's on scores, SGD's on weights; each > 0, a float32; by round.
        logit_adjustment: How much of the log of the client's own class frequencies the loss adds to the logits, 0 ..
            MAX_LOGIT_ADJUSTMENT, a float32: with it, a client that has seen a class but seldom does not unlearn it.
    """

    epochs: int
    batch_size: int
    learning_rate: Schedule[float]
    logit_adjustment: float = 0.0

    def to_proto(self) -> pb.LocalTraining:
        """Returns the protobuf form."""
        return pb.LocalTraining(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rates=rates(self.learning_rate),
            logit_adjustment=self.logit_adjustment,
        )

    @classmethod
    def from_proto(cls, proto: pb.LocalTraining) -> LocalTraining:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        check(1 <= proto.epochs <= limits.MAX_EPOCHS, "epochs", got=proto.epochs)
        check(1 <= proto.batch_size <= limits.MAX_BATCH_SIZE, "batch size", got=proto.batch_size)
        learning_rate = read_rates(proto.learning_rates, "learning rate", limits.MAX_LEARNING_RATE)
        tau = proto.logit_adjustment
        wanted = f"0 .. {limits.MAX_LOGIT_ADJUSTMENT}"
        fits = 0 <= tau <= limits.MAX_LOGIT_ADJUSTMENT and not is_minus_zero(tau)
        check(fits, "logit adjustment", got=tau, wanted=wanted)
        return cls(proto.epochs, proto.batch_size, learning_rate, tau)


@dataclass(frozen=True)
class DataPlan:
    """Whose data is whose.

    Attributes:
        dataset: Name that both ends know.
        partition: How its images are dealt out, spelt as `str(Partition)` does.
        num_slots: Number of shares.
        num_images: How many training images are dealt out, the first of the data set; None: all.
    """

    dataset: str
    partition: str
    num_slots: int
    num_images: int | None = None

    def to_proto(self) -> pb.DataPlan:
        """Returns the protobuf form."""
        return pb.DataPlan(
            dataset=self.dataset,
            partition=self.partition,
            num_slots=self.num_slots,
            num_images=self.num_images or 0,
        )

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
        return cls(proto.dataset, proto.partition, proto.num_slots, proto.num_images or None)


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
        num_rounds: After which the run ends, 1 .. MAX_ROUND: then the public state is the released model.
    """

    run_id: int
    model: ModelSpec
    protocol: MethodProtocol
    training: LocalTraining
    data: DataPlan
    method: str = "mask"
    num_rounds: int = limits.MAX_ROUND

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
            num_rounds=self.num_rounds,
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
        check_round(proto.num_rounds)
        check(proto.num_rounds > 0, "number of rounds", got=0, wanted=">= 1")
        model = model_from_proto(proto.model)
        name = proto.WhichOneof("method")
        if name is None:
            raise MalformedFrame("spec without a method")
        method = name.replace("_", "-")
        plain = model.tie == 1 and model.num_values == model.num_params
        check(plain or method == "mask", "tied masks or sums", got=method, wanted="mask")
        return cls(
            run_id=proto.run_id,
            model=model,
            protocol=_PROTOCOLS[method].from_proto(getattr(proto, name)),
            training=LocalTraining.from_proto(proto.training),
            data=DataPlan.from_proto(proto.data, model.num_classes),
            method=method,
            num_rounds=proto.num_rounds,
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
