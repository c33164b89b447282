"""A network's protobuf form, in specs and in artifacts.

Source: docs/wire.md, "Messages".
"""

from __future__ import annotations

import math

from pemn.distribution import Distribution
from pemn.errors import ConfigError, LocalError, MalformedFrame
from pemn.prototype import Strategy
from pemn.spec import FloatTensor, InputContract, Layer, ModelSpec
from pemn.wire import limits
from pemn.wire.checks import check, check_hash, check_text, is_minus_zero, parse
from pemn.wire.v1 import messages_pb2 as pb

_DISTRIBUTIONS = tuple(Distribution)


def model_to_proto(model: ModelSpec) -> pb.ModelSpec:
    """Returns the protobuf form of a network."""
    contract = pb.InputContract(
        shape=model.input.shape,
        mean=model.input.mean,
        std=model.input.std,
        class_names=model.input.class_names,
    )
    layers = [pb.Layer(name=v.name, shape=v.shape, scale=v.scale, terms=v.terms) for v in model.layers]
    return pb.ModelSpec(
        architecture=model.architecture,
        input=contract,
        layers=layers,
        seed=model.seed,
        strategy=str(model.strategy),
        distribution=model.distribution,
        floats=[pb.FloatTensor(name=v.name, shape=v.shape) for v in model.floats],
        structure=model.structure,
        tie=model.tie,
    )


def check_bounds(model: ModelSpec) -> None:
    """Checks that a network can be sent and kept: what reads it refuses what is out of bounds.

    Raises:
        MalformedFrame: If it is.
    """
    proto = pb.ModelSpec()
    parse(proto, model_to_proto(model).SerializeToString(deterministic=True))
    model_from_proto(proto)


def model_from_proto(proto: pb.ModelSpec) -> ModelSpec:
    """Checks a network that came from outside; `parse` has bounded its lists and texts.

    Raises:
        MalformedFrame: If a field is missing, out of bounds or not in canonical form.
    """
    check_text(proto.architecture, "architecture")
    num_values = 0
    for layer in proto.layers:
        check_text(layer.name, "layer name")
        check(layer.scale <= limits.MAX_SCALE, "scale", got=layer.scale, wanted=f"<= {limits.MAX_SCALE}")
        num_values += layer.terms * math.prod(layer.shape)
        check(num_values <= limits.MAX_PARAMS, "number of values", wanted=f"<= {limits.MAX_PARAMS}")
    num_floats = 0
    for tensor in proto.floats:
        check_text(tensor.name, "name of floats")
        num_floats += math.prod(tensor.shape)
        check(num_floats <= limits.MAX_FLOATS, "number of floats", wanted=f"<= {limits.MAX_FLOATS}")
    contract = proto.input
    check(len(contract.shape) == 3, "input shape", got=list(contract.shape), wanted="3 sizes")
    check(0 < contract.shape[0] <= limits.MAX_CHANNELS, "channels", got=contract.shape[0])
    pixels = math.prod(contract.shape)
    check(0 < pixels <= limits.MAX_PARAMS, "input size", got=pixels)
    check(len(contract.class_names) > 0, "no classes")
    for name in contract.class_names:
        check_text(name, "class name")
    check(not any(is_minus_zero(v) for v in contract.mean), "mean", got=-0.0, wanted=0.0)
    check(
        proto.distribution in _DISTRIBUTIONS,
        "distribution",
        got=repr(proto.distribution),
        wanted=", ".join(_DISTRIBUTIONS),
    )
    check_hash(proto.structure, limits.STRUCTURE_BYTES, "structure")
    try:
        model = ModelSpec(
            architecture=proto.architecture,
            input=InputContract(
                shape=(contract.shape[0], contract.shape[1], contract.shape[2]),
                mean=tuple(contract.mean),
                std=tuple(contract.std),
                class_names=tuple(contract.class_names),
            ),
            layers=tuple(Layer(v.name, tuple(v.shape), v.scale, v.terms) for v in proto.layers),
            seed=proto.seed,
            strategy=Strategy.parse(proto.strategy),
            distribution=Distribution(proto.distribution),
            floats=tuple(FloatTensor(v.name, tuple(v.shape)) for v in proto.floats),
            structure=proto.structure,
            tie=proto.tie,
        )
    except (LocalError, ConfigError) as error:
        raise MalformedFrame(f"network: {error}") from error
    check(str(model.strategy) == proto.strategy, "spelling of the strategy", got=proto.strategy)
    return model
