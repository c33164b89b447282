"""The networks by name, and the check that both ends build the same one."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from pemn.errors import ConfigError, WrongSpec
from pemn.prototype import Strategy
from pemn.spec import InputContract, Layer, ModelSpec
from pemn.training.local import unflatten
from pemn.training.models import PAPER, WeightInit, build_seeded, check_model, describe, model_spec
from pemn.training.networks import build
from tests.networks import DIGITS

CIFAR = InputContract((3, 32, 32), (0.5,) * 3, (0.25,) * 3, tuple("abcdefghij"))


def spec_of(architecture: str = "mlp-16-12", contract: InputContract = DIGITS) -> ModelSpec:
    return model_spec(architecture, contract, 7, Strategy("mp"))


@pytest.mark.parametrize("architecture", ["mlp-2", "mlp-16-12-5", "cnn-5", "cnn-8-12", "cnn-4-6-16-7"])
def test_every_network_classifies_and_is_all_weights(architecture: str) -> None:
    module = build(architecture, DIGITS.shape, 10)
    assert module(torch.zeros(3, *DIGITS.shape)).shape == (3, 10)
    layers = spec_of(architecture).layers
    assert [(v.name, v.shape) for v in layers] == [
        (name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()
    ]
    for layer in layers:
        assert layer.scale == np.float32(2 / math.sqrt(math.prod(layer.shape[1:])))


def test_the_small_conv_net_has_the_published_shape() -> None:
    spec = spec_of("cnn-64-128-128", CIFAR)
    assert [layer.shape for layer in spec.layers] == [
        (64, 3, 3, 3),
        (128, 64, 3, 3),
        (128, 128, 3, 3),
        (10, 128),
    ]
    module = build("cnn-64-128-128", CIFAR.shape, 10)
    sides = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
        if isinstance(part, nn.GroupNorm):
            assert part.num_groups == 8
    module(torch.zeros(1, *CIFAR.shape))
    assert sides == [16, 8, 8]


def test_group_norm_falls_back_to_a_divisor() -> None:
    groups = [
        m.num_groups for m in build("cnn-12-9-16", CIFAR.shape, 10).modules() if isinstance(m, nn.GroupNorm)
    ]
    assert groups == [4, 1, 8]


@pytest.mark.parametrize(
    "name",
    ["resnet", "mlp", "mlp-", "mlp-0", "mlp-1", "mlp-16-", "mlp-016", "mlp-999999", "cnn-8-x", "", "MLP-8"],
)
def test_unknown_networks_are_refused_with_what_exists(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown architecture: got .*(mlp-W1|cnn-C1|resnet-20)"):
        build(name, DIGITS.shape, 10)


def test_images_whose_features_would_be_normalised_away_are_refused() -> None:
    with pytest.raises(ConfigError, match="image too small"):
        build("cnn-8-8", (1, 4, 4), 10)
    build("cnn-8-8", (1, 5, 5), 10)


def test_describing_a_network_takes_no_memory_for_it() -> None:
    assert spec_of("mlp-9999-9999").num_params > 10**8
    with pytest.raises(
        ConfigError, match=r"network that no file can hold: number of values.*in mlp-99999-99999"
    ):
        spec_of("mlp-99999-99999")
    with pytest.raises(
        ConfigError, match=r"numbers of a network: got .*; wanted at most .*; in mlp-99999-99999"
    ):
        build_seeded("mlp-99999-99999", DIGITS, 1)


def own_code(monkeypatch: pytest.MonkeyPatch, factory: Callable[..., object]) -> str:
    module = ModuleType("their_networks")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.make = factory  # type: ignore[attr-defined]
    return "their_networks:make"


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (
            lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(64, 7)),
            r"got \(2, 7\); wanted \(2, 10\)",
        ),
        (lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(65, 10)), "cannot be run on images of"),
        (lambda shape, classes: nn.LSTM(8, 10), "cannot be run|logits of the network"),
    ],
)
def test_a_network_that_gives_no_logits_is_refused_before_it_is_trained(
    monkeypatch: pytest.MonkeyPatch, network: Callable[..., object], told: str
) -> None:
    name = own_code(monkeypatch, network)
    with pytest.raises(ConfigError, match=told):
        build_seeded(name, DIGITS, 1)


def test_installed_code_may_compute_while_it_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As stochastic depth does it."""

    def make(shape: tuple[int, int, int], classes: int) -> nn.Module:
        rates = [rate.item() for rate in torch.linspace(0, 0.1, 2)]
        return nn.Sequential(nn.Flatten(), nn.Dropout(rates[1]), nn.Linear(math.prod(shape), classes))

    name = own_code(monkeypatch, make)
    check_model(model_spec(name, DIGITS, 7, Strategy("mp")), name)


def test_the_seed_alone_makes_a_network() -> None:
    def state(seed: int) -> torch.Tensor:
        return build_seeded("vit-1-16", CIFAR, seed).get_parameter("cls").detach()

    torch.manual_seed(5)
    one = state(2)
    torch.manual_seed(6)
    assert torch.equal(state(2), one)
    assert not torch.equal(state(3), one)


def test_what_is_not_masked_is_named_as_floats() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10, bias=False)
    )
    spec = describe(module, "own", DIGITS, 7, Strategy("mp"))
    assert [layer.name for layer in spec.layers] == ["0.weight", "3.weight"]
    assert [tensor.name for tensor in spec.floats] == [
        *("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"),
    ]


@pytest.mark.parametrize(
    ("strategy", "init", "fans"),
    [
        ("mp", PAPER, [64, 64, 64]),  # all take the first layer's values
        ("full", PAPER, [64, 16, 12]),
        ("one-layer", PAPER, [64, 16, 12]),
        ("rp:0.1", WeightInit(gain=2.0), [64, 16, 12]),
    ],
)
def test_the_scale_of_a_layer(strategy: str, init: WeightInit, fans: list[int]) -> None:
    spec = model_spec("mlp-16-12", DIGITS, 7, Strategy.parse(strategy), init)
    assert [layer.scale for layer in spec.layers] == [np.float32(init.gain / math.sqrt(fan)) for fan in fans]


@pytest.mark.parametrize(
    ("architecture", "contract", "terms", "counts"),
    [
        ("cnn-64-128-128", CIFAR, 16, [16, 1, 1, 32]),
        ("cnn-64-128-128", CIFAR, 1, [1, 1, 1, 1]),
        ("mlp-256-256", CIFAR, 2, [1, 1, 4]),  # its first layer is large
        ("mlp-16-12", DIGITS, 16, [1, 1, 1]),  # a tenth of it, and more
    ],
)
def test_weights_of_small_ends_are_sums(
    architecture: str, contract: InputContract, terms: int, counts: list[int]
) -> None:
    layers = model_spec(architecture, contract, 7, Strategy("mp"), WeightInit(terms=terms)).layers
    assert [layer.terms for layer in layers] == counts
    for layer, count in zip(layers, counts, strict=True):
        fan_in = math.prod(layer.shape[1:])
        assert layer.scale == np.float32(2 / math.sqrt(fan_in * (terms if count > 1 else 1)))


@pytest.mark.parametrize("terms", [0, -1, 33])
def test_terms_that_no_layer_can_have(terms: int) -> None:
    with pytest.raises(ConfigError, match=rf"^terms of a weight: got {terms}; wanted 1 .. 32$"):
        WeightInit(terms=terms)


def test_a_gain_that_is_none() -> None:
    with pytest.raises(ConfigError, match="gain of the weights: got nan"):
        WeightInit(gain=math.nan)


def test_installed_code_is_not_run_because_the_other_end_says_so() -> None:
    spec = dataclasses.replace(spec_of(), architecture="antigravity:fly")
    for allowed in (None, "antigravity:land"):
        with pytest.raises(WrongSpec, match="network from installed code: got antigravity:fly"):
            check_model(spec, allowed)
    with pytest.raises(WrongSpec, match="network of the spec"):
        check_model(dataclasses.replace(spec, architecture="pemn_no_such:fly"), "pemn_no_such:fly")


def test_a_spec_of_this_machine_passes() -> None:
    check_model(spec_of())
    check_model(spec_of("cnn-8-12", CIFAR))


@pytest.mark.parametrize(
    "layer",
    [
        Layer("linear1.bias", (16, 64), 0.25),
        Layer("linear1.weight", (64, 16), 0.25),
    ],
)
def test_a_spec_with_another_layer_is_refused_by_name(layer: Layer) -> None:
    spec = spec_of()
    other = dataclasses.replace(spec, layers=(layer, *spec.layers[1:]))
    with pytest.raises(WrongSpec, match=r"tensor of the network: .*; in linear1\.(weight|bias)"):
        check_model(other)


def test_a_network_of_the_same_tensors_but_other_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed code that has changed between the two ends."""

    def factory(step: type[nn.Module]) -> Callable[[tuple[int, int, int], int], nn.Module]:
        return lambda shape, classes: nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(shape), 5), step(), nn.Linear(5, classes)
        )

    module = ModuleType("their_networks")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    name = "their_networks:make"
    module.make = factory(nn.ReLU)  # type: ignore[attr-defined]
    spec = model_spec(name, DIGITS, 7, Strategy("mp"))
    check_model(spec, name)
    module.make = factory(nn.Tanh)  # type: ignore[attr-defined]
    here = model_spec(name, DIGITS, 7, Strategy("mp")).structure
    told = f"got {spec.structure.hex()}; wanted {here.hex()}; in their_networks:make"
    with pytest.raises(WrongSpec, match=f"structure of the network: the same tensors.*: {told}"):
        check_model(spec, name)
    almost = here[:-1] + bytes([here[-1] ^ 1])
    with pytest.raises(WrongSpec, match="structure of the network"):
        check_model(dataclasses.replace(spec, structure=almost), name)


def test_a_spec_with_fewer_layers_or_an_unknown_name_is_refused() -> None:
    spec = spec_of()
    with pytest.raises(WrongSpec, match=r"tensor of the network: wanted \(10, 12\); in head.weight"):
        check_model(dataclasses.replace(spec, layers=spec.layers[:2]))
    with pytest.raises(WrongSpec, match="unknown architecture"):
        check_model(dataclasses.replace(spec, architecture="transformer"))


def test_flat_weights_are_what_the_module_computes_with() -> None:
    spec = spec_of("mlp-6")
    weights = np.random.default_rng(1).standard_normal(spec.num_params).astype(np.float32)
    module = build("mlp-6", DIGITS.shape, 10)
    module.load_state_dict(unflatten(torch.from_numpy(weights), spec))
    image = np.random.default_rng(2).standard_normal((1, 64)).astype(np.float32)
    first, second = weights[: 6 * 64].reshape(6, 64), weights[6 * 64 :].reshape(10, 6)
    hidden = image @ first.T
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5)
    wanted = np.maximum(hidden, 0) @ second.T
    got = module(torch.from_numpy(image.reshape(1, 1, 8, 8))).detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
