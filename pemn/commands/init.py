"""`pemn init`: an untrained model with a random mask, to plan sizes with."""

from __future__ import annotations

import argparse
import re

import pemn
from pemn.distribution import Distribution
from pemn.errors import ConfigError
from pemn.files import write_atomic
from pemn.packaging import package
from pemn.prototype import Strategy
from pemn.spec import InputContract
from pemn.training.masked import mask_model
from pemn.training.models import PAPER, WeightInit, build_seeded, describe
from pemn.training.rules import Rules
from pemn.training.scores import ScoreRule
from pemn.wire.limits import MAX_CLASSES

_INPUT = re.compile(r"([0-9]{1,6})x([0-9]{1,6})x([0-9]{1,6})")


def init(options: argparse.Namespace) -> int:
    """Writes the model; its scores are those that training would start from.

    Args:
        options: `model`, `strategy`, `values`, `seed`, `kept`, `dense_layers`, `input`, `classes` and `output`, as the
            parser has them.

    Raises:
        PemnError: If one of them is wrong, or the file cannot be written.
    """
    if options.values not in tuple(Distribution):
        raise ConfigError("values", got=options.values, wanted=", ".join(Distribution), where="--values")
    if not 0 <= options.seed < 1 << 64:
        raise ConfigError("seed", got=options.seed, wanted="0 .. 2^64-1", where="--seed")
    if not 0 < options.kept <= 1:
        raise ConfigError("share that is kept", got=options.kept, wanted="above 0, at most 1", where="--kept")
    values = WeightInit(Distribution(options.values), PAPER.gain, PAPER.rescale)
    rule, contract = ScoreRule.parse(f"topk:{options.kept}"), _contract(options.input, options.classes)
    module, strategy = build_seeded(options.model, contract, options.seed), Strategy.parse(options.strategy)
    rules = Rules(dense=tuple(filter(None, (options.dense_layers or "").split(","))))
    spec = describe(module, options.model, contract, options.seed, strategy, values, rules)
    mask_model(module, spec, rule)
    artifact = package(module, spec, {"pemn": pemn.__version__, "note": "untrained"})
    data = artifact.to_bytes()
    write_atomic(options.output, data)
    print(
        f"{options.output}: {len(data):,} bytes; {spec.num_params:,} masked weights from "
        f"{spec.unique_values:,} values, {spec.num_floats:,} floats, untrained"
    )
    return 0


def _contract(shape: str, num_classes: int) -> InputContract:
    match = _INPUT.fullmatch(shape)
    if not match or not all(int(size) for size in match.groups()):
        raise ConfigError("shape of an image", got=shape, wanted="such as 3x32x32", where="--input")
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ConfigError("classes", got=num_classes, wanted=f"1 .. {MAX_CLASSES}", where="--classes")
    channels, height, width = map(int, match.groups())
    names = tuple(map(str, range(num_classes)))
    return InputContract((channels, height, width), (0.5,) * channels, (0.25,) * channels, names)
