"""Real models that the tests share: exported by torch, with random masks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pemn.artifact import Artifact
from pemn.distribution import Distribution
from pemn.export.dense import dense
from pemn.export.packed import packed
from pemn.export.skeleton import skeleton
from pemn.mask import Mask
from pemn.prototype import Strategy
from pemn.spec import InputContract
from pemn.training.models import WeightInit, describe, model_spec
from pemn.training.networks import build
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
    distribution: Distribution = Distribution.SIGNED,
    tie: int = 1,
    terms: int = 1,
) -> Artifact:
    """Weights of the last layer are sums of `terms` values."""
    spec = model_spec(architecture, contract, seed, Strategy.parse(strategy))
    layers = (*spec.layers[:-1], replace(spec.layers[-1], terms=terms))
    spec = replace(spec, layers=layers, distribution=distribution, tie=tie)
    bits = np.random.default_rng(seed).random(spec.num_bits) < density
    mask = Mask.from_bits(bits, spec.bit_sizes)
    return Artifact.of(spec, mask, skeleton_of(architecture, contract), {"dataset": "digits"})


class Normed(nn.Module):
    """A small network with every kind of floats; `num_batches_tracked` of its batch norms is a counter and none."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.position = nn.Parameter(torch.zeros(1, 16, 9))
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 9, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(9, affine=False)
        self.norm3 = nn.LayerNorm(9)
        self.head = nn.Linear(9, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Takes float32 [batch, 1, 8, 8], returns logits [batch, 10]."""
        x = torch.relu(self.norm1(self.conv1(image)))
        x = torch.relu(self.norm2(self.conv2(x)))
        x = x.flatten(2).transpose(1, 2) + self.position
        logits: torch.Tensor = self.head(self.norm3(x).mean(dim=1) * self.gain)
        return logits


@cache
def normed_skeleton() -> bytes:
    return skeleton(Normed(), describe(Normed(), "normed", DIGITS, 0, Strategy("full")))


@cache
def make_normed(distribution: Distribution = Distribution.NORMAL, strategy: str = "rp:0.1") -> Artifact:
    """`Normed` with random floats."""
    init = WeightInit(distribution)
    spec = describe(Normed(), "normed", DIGITS, 7, Strategy.parse(strategy), init)
    random = np.random.default_rng(7)
    mask = Mask.from_bits(random.random(spec.num_params) < 0.5, spec.sizes)
    floats = [
        random.uniform(0.5, 2, part.size)
        if part.name.endswith("running_var")
        else random.normal(0, 1, part.size)
        for part in spec.floats
    ]
    data = np.concatenate(floats).astype("<f4").tobytes()
    return Artifact.of(spec, mask, normed_skeleton(), {"dataset": "digits"}, floats=data)


@cache
def make_file(
    form: str, architecture: str = "mlp-16-12", strategy: str = "rp:0.1", tie: int = 1, terms: int = 1
) -> bytes:
    """One model as `pemn`, `packed` or `dense`."""
    return as_file(form, make_artifact(architecture, strategy, tie=tie, terms=terms))


def as_file(form: str, artifact: Artifact) -> bytes:
    """A model as `pemn`, `packed` or `dense`."""
    return {"pemn": Artifact.to_bytes, "packed": packed, "dense": dense}[form](artifact)


def random_images(contract: InputContract, count: int = 9) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, *contract.shape), np.uint8)
