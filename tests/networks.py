"""Small networks that the tests share."""

from __future__ import annotations

import math

from pemn.federation.levels import normal_start_levels
from pemn.prototype import Strategy
from pemn.schedule import Schedule
from pemn.spec import InputContract, Layer, ModelSpec, to_float32
from pemn.wire.protocols import MaskProtocol
from pemn.wire.spec import DataPlan, LocalTraining, Spec

DIGITS = InputContract((1, 8, 8), (to_float32(0.3044),), (to_float32(0.3761),), tuple("0123456789"))


def model_spec(
    *shapes: tuple[int, ...], strategy: str = "rp:1e-1", seed: int = 7, architecture: str = "mlp-16"
) -> ModelSpec:
    layers = tuple(
        Layer(f"layers.{i}.weight", shape, to_float32(2 / math.sqrt(math.prod(shape[1:]))))
        for i, shape in enumerate(shapes)
    )
    return ModelSpec(architecture, DIGITS, layers, seed, Strategy.parse(strategy), bytes(range(16)))


def run_spec(
    model: ModelSpec,
    *,
    num_slots: int = 3,
    step: int = 32768,
    spread: float = 3.0,
    eta: tuple[int, int] = (1, 1),
    run_id: int = 0x0123456789ABCDEF,
) -> Spec:
    protocol = MaskProtocol(step, Schedule.always(eta[0]), eta[1], normal_start_levels(spread, 64))
    training = LocalTraining(1, 32, Schedule.always(to_float32(0.2)))
    return Spec(run_id, model, protocol, training, DataPlan("digits", "iid", num_slots))
