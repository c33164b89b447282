"""From a person's options to a method: its settings, and the weights that it starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pemn.distribution import Distribution
from pemn.federation.levels import ONE, normal_start_levels
from pemn.prototype import Strategy
from pemn.spec import to_float32
from pemn.training.models import WeightInit
from pemn.wire.spec import FedAvgProtocol, FedPMProtocol, MaskProtocol, MethodProtocol, StcProtocol
from pemn_server.settings import RunOptions, SimulateSettings

_ETA_DEN = 1000
_FEDPM_SPREAD = 1.0


@dataclass(frozen=True)
class MethodChoice:
    """A method with what belongs to it.

    Attributes:
        name: One of `pemn.wire.spec.METHODS`.
        protocol: Its settings.
        learning_rate: Of the clients' optimizer.
        strategy: How the initial weights are filled.
        init: How they are drawn; the default of `pemn.training.models` if None.
    """

    name: str
    protocol: MethodProtocol
    learning_rate: float
    strategy: Strategy
    init: WeightInit | None = None


def choose_method(options: RunOptions) -> MethodChoice:
    """Returns the method that a person has asked for; without a choice it is `mask`.

    Raises:
        ConfigError: If there is no such strategy.
    """
    name = options.method if isinstance(options, SimulateSettings) else "mask"
    if name == "mask":
        protocol = MaskProtocol(
            step=max(1, round(options.step * ONE)),
            eta_num=round(options.server_step * _ETA_DEN),
            eta_den=_ETA_DEN,
            start_levels=normal_start_levels(options.spread),
        )
        rate = 0.2 if options.learning_rate is None else options.learning_rate
        return MethodChoice(name, protocol, rate, Strategy.parse(options.strategy))
    assert isinstance(options, SimulateSettings)
    momentum = to_float32(options.momentum)
    if name in ("fedpm", "fedpm-counts"):
        levels = normal_start_levels(_FEDPM_SPREAD)
        # As published: every weight its own sign, e / sqrt(fan_in) large.
        init = WeightInit(Distribution.SIGNED, math.e)
        return _compared(options, FedPMProtocol(levels), 0.1, init)
    kaiming = WeightInit(Distribution.NORMAL, math.sqrt(2.0))
    if name == "stc":
        return _compared(options, StcProtocol(momentum, to_float32(options.share)), 0.05, kaiming)
    return _compared(options, FedAvgProtocol(momentum), 0.05, kaiming)


def _compared(
    options: SimulateSettings, protocol: MethodProtocol, learning_rate: float, init: WeightInit
) -> MethodChoice:
    rate = learning_rate if options.learning_rate is None else options.learning_rate
    return MethodChoice(options.method, protocol, rate, Strategy("full"), init)
