"""Real models that the tests share: exported by torch, with random masks."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from pemn.artifact import Artifact
from pemn.export.dense import dense
from pemn.export.packed import packed
from pemn.export.skeleton import skeleton
from pemn.mask import Mask
from pemn.prototype import Strategy
from pemn.spec import InputContract
from pemn.training.models import build, model_spec
from tests.networks import DIGITS

torch.set_num_threads(1)


@cache
def skeleton_of(architecture: str, contract: InputContract = DIGITS) -> bytes:
    """A skeleton does not depend on seed and strategy, and an export takes a second."""
    module = build(architecture, contract.shape, len(contract.class_names))
    return skeleton(module, model_spec(architecture, contract, 0, Strategy("full")))


@cache
def make_artifact(
    architecture: str = "mlp-16-12",
    strategy: str = "rp:0.1",
    *,
    contract: InputContract = DIGITS,
    seed: int = 7,
    density: float = 0.5,
) -> Artifact:
    spec = model_spec(architecture, contract, seed, Strategy.parse(strategy))
    bits = np.random.default_rng(seed).random(spec.num_params) < density
    mask = Mask.from_bits(bits, spec.sizes)
    return Artifact.of(spec, mask, skeleton_of(architecture, contract), {"dataset": "digits"})


@cache
def make_file(form: str, architecture: str = "mlp-16-12", strategy: str = "rp:0.1") -> bytes:
    """One model as `pemn`, `packed` or `dense`."""
    artifact = make_artifact(architecture, strategy)
    if form == "pemn":
        return artifact.to_bytes()
    make = {"packed": packed, "dense": dense}[form]
    return make(artifact.onnx_skeleton, artifact.model, artifact.mask)


def random_images(contract: InputContract, count: int = 9) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, *contract.shape), np.uint8)
