"""The settings of each method, as a spec carries them.

Source: docs/wire.md, "Messages".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from pemn.errors import LocalError, MalformedFrame
from pemn.schedule import Schedule, Value
from pemn.wire import limits
from pemn.wire.checks import check, check_round, is_minus_zero
from pemn.wire.v1 import messages_pb2 as pb

_ONCE = Schedule.always(1)
_ALL = Schedule.always(256)


def counts(schedule: Schedule[int]) -> list[pb.Count]:
    """Returns the protobuf form of integers by round."""
    return [pb.Count(from_round=round_, value=value) for round_, value in schedule.changes]


def rates(schedule: Schedule[float]) -> list[pb.Rate]:
    """Returns the protobuf form of floats by round."""
    return [pb.Rate(from_round=round_, value=value) for round_, value in schedule.changes]


def read_counts(changes: Sequence[pb.Count], what: str, most: int) -> Schedule[int]:
    """Checks integers by round that came from outside.

    Args:
        changes: At most MAX_CHANGES of them.
        what: For errors.
        most: The greatest that there may be; the least is 1.

    Raises:
        MalformedFrame: If one is out of bounds, or they are no schedule.
    """
    for change in changes:
        check_round(change.from_round)
        check(1 <= change.value <= most, what, got=change.value, wanted=f"1 .. {most}")
    return _schedule([(change.from_round, change.value) for change in changes], what)


def read_rates(changes: Sequence[pb.Rate], what: str, most: float) -> Schedule[float]:
    """Checks floats by round that came from outside; see `read_counts`. They are above 0."""
    for change in changes:
        check_round(change.from_round)
        check(0 < change.value <= most, what, got=change.value, wanted=f"above 0, <= {most}")
    return _schedule([(change.from_round, change.value) for change in changes], what)


def _schedule(changes: list[tuple[int, Value]], what: str) -> Schedule[Value]:
    try:
        return Schedule(tuple(changes))
    except LocalError as error:
        raise MalformedFrame(f"{what}: {error}") from error


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
        eta_num: p_hat moves by eta_num / (eta_den * K) a vote, 1 .. 65535; by round.
        eta_den: See `eta_num`, 1 .. 65535.
        start_levels: Lower half of the symmetric table of start levels, ascending, each 66 .. 32768; the upper half
            is 65536 minus these. Empty: every weight starts at 1/2.
        stride: k moves by multiples of so many steps, each 1 .. MAX_STRIDE and less than a probability of 1; by round.
        window: Over about how many rounds the released model is averaged, 1 .. MAX_WINDOW; 1: it is p_hat.
        keep: What part of its distance to q p_hat keeps each round, in 1/256, 1 .. 256; by round.
    """

    step: int
    eta_num: Schedule[int]
    eta_den: int
    start_levels: tuple[int, ...]
    stride: Schedule[int] = _ONCE
    window: int = 1
    keep: Schedule[int] = _ALL

    def to_proto(self) -> pb.MaskProtocol:
        """Returns the protobuf form."""
        return pb.MaskProtocol(
            step=self.step,
            eta_nums=counts(self.eta_num),
            eta_den=self.eta_den,
            start_level_deltas=_deltas(self.start_levels),
            strides=counts(self.stride),
            window=self.window,
            keeps=counts(self.keep),
        )

    @classmethod
    def from_proto(cls, proto: pb.MaskProtocol) -> MaskProtocol:
        """Checks a foreign message.

        Raises:
            MalformedFrame: If a field is out of bounds.
        """
        for name, least, most in (
            ("step", limits.MIN_STEP, 65535),
            ("eta_den", 1, 65535),
            ("window", 1, limits.MAX_WINDOW),
        ):
            value = getattr(proto, name)
            check(least <= value <= most, name, got=value, wanted=f"{least} .. {most}")
        most = min(limits.MAX_STRIDE, 65535 // proto.step)
        return cls(
            step=proto.step,
            eta_num=read_counts(proto.eta_nums, "eta_num", 65535),
            eta_den=proto.eta_den,
            start_levels=_start_levels(proto.start_level_deltas),
            stride=read_counts(proto.strides, "stride", most),
            window=proto.window,
            keep=read_counts(proto.keeps, "keep", 256),
        )


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


def _check_momentum(momentum: float) -> None:
    check(0 <= momentum < 1 and not is_minus_zero(momentum), "momentum", got=momentum, wanted="0 .. below 1")


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
        _check_momentum(proto.momentum)
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
        _check_momentum(proto.momentum)
        check(0 < proto.share <= 1, "share of the weights", got=proto.share)
        return cls(proto.momentum, proto.share)


MethodProtocol: TypeAlias = MaskProtocol | FedPMProtocol | FedAvgProtocol | StcProtocol
"""What makes a run's method, and its settings."""
