"""The structure's hash: what changes it and what does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from pemn.training.networks import build
from pemn.training.structure import structure_hash

CIFAR = (3, 32, 32)
NETWORKS = ["mlp-16-12", "cnn-8-12", "conv-4", "resnet-20", "convmixer-2-16", "vit-2-24"]


class Scaled(nn.Module):
    """A module of somebody's own, with all that the hash looks at."""

    def __init__(
        self,
        *,
        factor: float = 2.0,
        act: Callable[..., torch.Tensor] = functional.relu,
        sides: tuple[int, ...] = (1, 2),
        hidden: int = 1,
        persistent: bool = True,
        buffer: str = "mean",
        buffer_size: int = 2,
        weight_size: int = 2,
        dtype: torch.dtype = torch.float32,
        options: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.factor, self.act, self.sides = factor, act, sides
        self.options = options
        self._hidden = hidden
        self.weight = nn.Parameter(torch.ones(weight_size))
        self.register_buffer(buffer, torch.zeros(buffer_size, dtype=dtype), persistent=persistent)


class Renamed(Scaled):
    pass


def conv(**options: object) -> nn.Module:
    return nn.Conv2d(4, 8, 3, **{"padding": 1, "bias": False, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", NETWORKS)
def test_two_builds_are_equal_whatever_their_weights_device_and_mode(architecture: str) -> None:
    wanted = structure_hash(build(architecture, CIFAR, 10))
    assert len(wanted) == 16
    assert structure_hash(build(architecture, CIFAR, 10).eval()) == wanted
    with torch.device("meta"):
        assert structure_hash(build(architecture, CIFAR, 10)) == wanted


def test_another_process_finds_the_same() -> None:
    code = (
        "from pemn.training.networks import build; from pemn.training.structure import structure_hash;"
        f"print(*(structure_hash(build(a, {CIFAR}, 10)).hex() for a in {NETWORKS}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == [structure_hash(build(a, CIFAR, 10)).hex() for a in NETWORKS]


def test_every_network_has_its_own() -> None:
    names = [*NETWORKS, "mlp-12-16", "cnn-8-13", "conv-6", "resnet-32", "convmixer-2-16-p4", "vit-3-24"]
    hashes = {structure_hash(build(name, CIFAR, classes)) for name in names for classes in (10, 11)}
    assert len(hashes) == 2 * len(names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (conv(), conv(stride=2)),
        (conv(), conv(padding=2)),
        (conv(), conv(dilation=2)),
        (conv(), conv(padding_mode="circular")),
        (conv(), conv(bias=True)),
        (nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 3, bias=False, padding=1)),
        (nn.ReLU(), nn.GELU()),
        (nn.GELU(), nn.GELU("tanh")),
        (nn.GroupNorm(2, 8), nn.GroupNorm(4, 8)),
        (nn.GroupNorm(2, 8), nn.GroupNorm(2, 8, eps=1e-6)),
        (nn.GroupNorm(2, 8), nn.GroupNorm(2, 8, affine=False)),
        (nn.BatchNorm2d(8), nn.BatchNorm2d(8, momentum=0.2)),
        (nn.BatchNorm2d(8), nn.BatchNorm1d(8)),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (nn.Linear(4, 8), nn.Linear(8, 4)),
        (nn.Linear(4, 8), nn.Linear(4, 8).double()),
        (nn.MaxPool2d(2), nn.AvgPool2d(2)),
        (nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=True)),
        (nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 4)),  # which torch itself does not show
        (
            nn.TransformerEncoderLayer(8, 2, activation=functional.relu),
            nn.TransformerEncoderLayer(8, 2, activation=functional.silu),
        ),
        (nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU())),
        (nn.ModuleDict({"a": nn.ReLU()}), nn.ModuleDict({"b": nn.ReLU()})),
        (
            nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU()),
            nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU())),
        ),
        (Scaled(), Renamed()),
        (Scaled(), Scaled(factor=3.0)),
        (Scaled(), Scaled(factor=2)),
        (Scaled(), Scaled(act=functional.gelu)),
        (Scaled(), Scaled(sides=(1, 3))),
        (Scaled(), Scaled(persistent=False)),
        (Scaled(), Scaled(buffer="offset")),
        (Scaled(), Scaled(buffer_size=3)),
        (Scaled(), Scaled(weight_size=3)),
        (Scaled(), Scaled(dtype=torch.float64)),
    ],
)
def test_what_computes_something_else_has_another(one: nn.Module, other: nn.Module) -> None:
    assert structure_hash(one) != structure_hash(other)


def test_what_is_out_of_sight() -> None:
    """Said in the docstring: private attributes, dictionaries, values of buffers."""
    moved = Scaled(hidden=2, options={"stride": 2})
    moved.get_buffer("mean").fill_(1)
    assert structure_hash(Scaled(options={"stride": 1})) == structure_hash(moved)


def test_what_a_class_shows_is_not_looked_at() -> None:
    """A text for people may hold a weight, which is on no meta device."""

    class Shown(nn.Linear):
        def extra_repr(self) -> str:
            return f"first={self.weight[0, 0].item()}"

    wanted = structure_hash(Shown(3, 2))
    with torch.device("meta"):
        assert structure_hash(Shown(3, 2)) == wanted


def test_a_list_that_holds_itself_is_left_out() -> None:
    module, before = nn.ReLU(), structure_hash(nn.ReLU())
    endless: list[object] = []
    endless.append(endless)
    module.endless = endless  # type: ignore[assignment]
    assert structure_hash(module) == before


@pytest.mark.parametrize(
    ("architecture", "wanted"),
    [
        ("mlp-256-256", "7886dcf69017a9e4cc37c8ca2783d2ef"),
        ("cnn-64-128-128", "dde429cfa1344c1c119edd201c875e7d"),
        ("conv-4", "02e953f33707ff0137ed952edcc04620"),
        ("resnet-20", "8d5dd5dacc5250807882608b6b903253"),
        ("convmixer-6-256", "43afe6c8ab033bab74e104178c0a2633"),
        ("vit-6-256", "5340dafd8d93c2d56dd2e8bd9d2c38c1"),
    ],
)
def test_the_networks_that_others_hold_too_keep_their_hashes(architecture: str, wanted: str) -> None:
    """A change here parts releases that could talk: it is a new version of the protocol (docs/wire.md)."""
    assert structure_hash(build(architecture, CIFAR, 10)).hex() == wanted


def test_a_module_that_is_used_twice_is_two_steps() -> None:
    relu, line = nn.ReLU(), nn.Linear(4, 4)
    once = nn.Sequential(relu, line)
    twice = nn.Sequential(relu, line, relu)
    apart = nn.Sequential(relu, line, nn.ReLU())
    assert len({structure_hash(module) for module in (once, twice, apart)}) == 3


def test_tied_weights_are_not_two_of_one_shape() -> None:
    tied, apart = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    tied[1].weight = tied[0].weight
    assert structure_hash(tied) != structure_hash(apart)
