"""From a person's options to a method: its settings, and the weights that it starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pemn.distribution import Distribution
from pemn.errors import ConfigError
from pemn.federation.levels import ONE, normal_start_levels
from pemn.prototype import Strategy
from pemn.schedule import Schedule, parse_schedule
from pemn.spec import to_float32
from pemn.training.models import WeightInit
from pemn.wire import limits
from pemn.wire.protocols import FedAvgProtocol, FedPMProtocol, MaskProtocol, MethodProtocol, StcProtocol
from pemn_server.settings import RunOptions, SimulateSettings

_ETA_DEN = 1000
_FEDPM_SPREAD = 1.0
_ONLY_FOR = {
    **dict.fromkeys(
        ("strategy", "step", "server_step", "leak", "averaging", "spread", "gain", "tie", "terms", "defence"),
        ("mask",),
    ),
    "momentum": ("fedavg", "fedavg-int8", "stc"),
    "share": ("stc",),
}
"""Options of some methods only; the others refuse them."""


@dataclass(frozen=True)
class MethodChoice:
    """A method with what belongs to it.

    Attributes:
        name: One of `pemn.wire.spec.METHODS`.
        protocol: Its settings.
        learning_rate: Of the clients' optimizer.
        strategy: How the initial weights are filled.
        init: How they are drawn.
        tie: How many weights share a bit of the mask.
    """

    name: str
    protocol: MethodProtocol
    learning_rate: Schedule[float]
    strategy: Strategy
    init: WeightInit
    tie: int = 1


def choose_method(options: RunOptions) -> MethodChoice:
    """Returns the method that a person has asked for; without a choice it is `mask`.

    Raises:
        ConfigError: If there is no such strategy or schedule, or an option is for another method.
    """
    name = options.method if isinstance(options, SimulateSettings) else "mask"
    _check_used(options, name)
    if name == "mask":
        init = WeightInit(Distribution.SIGNED, options.gain, True, options.terms)
        strategy = Strategy.parse(options.strategy)
        return MethodChoice(name, _mask(options), _rate(options, 0.3), strategy, init, options.tie)
    assert isinstance(options, SimulateSettings)
    momentum = to_float32(options.momentum)
    if name in ("fedpm", "fedpm-counts"):
        levels = normal_start_levels(_FEDPM_SPREAD)
        # As published: every weight its own sign, e / sqrt(fan_in) large.
        init = WeightInit(Distribution.SIGNED, math.e)
        return _compared(options, FedPMProtocol(levels), init)
    kaiming = WeightInit(Distribution.NORMAL, math.sqrt(2.0))
    if name == "stc":
        return _compared(options, StcProtocol(momentum, to_float32(options.share)), kaiming)
    return _compared(options, FedAvgProtocol(momentum), kaiming)


def _check_used(options: RunOptions, name: str) -> None:
    """Raises a ConfigError for an option that was changed and means nothing to a method."""
    fields = type(options).model_fields
    for option, methods in _ONLY_FOR.items():
        if option not in fields or name in methods:
            continue
        if (value := getattr(options, option)) != fields[option].default:
            flag = "--" + option.replace("_", "-")
            raise ConfigError(
                f"{flag} with --method {name}",
                got=value,
                wanted=f"it left out: it is for {', '.join(methods)}",
            )


def _mask(options: RunOptions) -> MaskProtocol:
    """Returns the settings of `mask`; of the distances that its step goes through, all are multiples of one."""
    distances = parse_schedule(options.step, 1 / 128, 1 - 1 / ONE, options.rounds, "--step").map(
        lambda step: round(step * ONE)
    )
    finest = math.gcd(*distances.values)
    if finest < limits.MIN_STEP:
        wanted = f"multiples of one step, at least 1/{ONE // limits.MIN_STEP}"
        raise ConfigError("steps by round", got=options.step, wanted=wanted, where="--step")
    leaks = parse_schedule(options.leak, 0, 255 / 256, options.rounds, "--leak")
    etas = parse_schedule(options.server_step, 1 / _ETA_DEN, 65, options.rounds, "--server-step")
    return MaskProtocol(
        step=finest,
        eta_num=etas.map(lambda eta: round(eta * _ETA_DEN)),
        eta_den=_ETA_DEN,
        start_levels=normal_start_levels(options.spread),
        stride=distances.map(lambda distance: distance // finest),
        window=options.averaging,
        keep=leaks.map(lambda leak: 256 - round(leak * 256)),
    )


def _rate(options: RunOptions, default: float) -> Schedule[float]:
    if options.learning_rate is None:
        return Schedule.always(to_float32(default))
    highest = limits.MAX_LEARNING_RATE
    schedule = parse_schedule(options.learning_rate, 1e-9, highest, options.rounds, "--learning-rate")
    return schedule.map(to_float32)


def _compared(options: SimulateSettings, protocol: MethodProtocol, init: WeightInit) -> MethodChoice:
    return MethodChoice(options.method, protocol, _rate(options, 0.1), Strategy("full"), init)
