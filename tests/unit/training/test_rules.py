"""Which tensors of a module are masked, which stay floats, and which are refused by name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from pemn.errors import ConfigError
from pemn.spec import FloatTensor
from pemn.training.rules import MaskedTensor, Rules, plan


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.conv = nn.Conv2d(6, 8, 3, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 4, stride=2, groups=2, bias=False)
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(4, 3)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))


MASKED = (
    MaskedTensor("conv.weight", (8, 3, 3, 3), 27),
    MaskedTensor(
        "up.weight", (8, 2, 4, 4), 16
    ),  # 4 channels a group, 16 kernel positions, one of 4 an output
    MaskedTensor("attention.in_proj_weight", (12, 4), 4),
    MaskedTensor("attention.out_proj.weight", (4, 4), 4),
    MaskedTensor("head.weight", (3, 4), 4),
)
FLOATS = (
    FloatTensor("token", (1, 1, 4)),
    FloatTensor("embed.weight", (10, 6)),
    FloatTensor("conv.bias", (8,)),
    FloatTensor("norm.weight", (8,)),
    FloatTensor("norm.bias", (8,)),
    FloatTensor("norm.running_mean", (8,)),
    FloatTensor("norm.running_var", (8,)),
    FloatTensor("attention.in_proj_bias", (12,)),
    FloatTensor("attention.out_proj.bias", (4,)),
    FloatTensor("head.bias", (3,)),
)


def test_the_default() -> None:
    found = plan(Net())
    assert found.masked == MASKED
    assert found.floats == FLOATS


def test_a_module_without_memory_has_the_same_plan() -> None:
    with torch.device("meta"):
        assert plan(Net()) == plan(Net(), Rules()) == type(plan(Net()))(MASKED, FLOATS)


def test_the_order_is_that_of_the_state() -> None:
    found = plan(Net(), Rules(masked=("token", "embed.weight")))
    names = [name for name in Net().state_dict() if not name.endswith("num_batches_tracked")]
    masked, floats = [v.name for v in found.masked], [v.name for v in found.floats]
    assert sorted(masked + floats, key=names.index) == names
    assert masked == sorted(masked, key=names.index)
    assert floats == sorted(floats, key=names.index)


def test_dense_patterns_take_out_and_masked_patterns_put_in() -> None:
    found = plan(Net(), Rules(dense=("head.*", "*.in_proj_weight"), masked=("embed.weight", "token")))
    assert [v.name for v in found.masked] == [
        "token",
        "embed.weight",
        "conv.weight",
        "up.weight",
        "attention.out_proj.weight",
    ]
    assert [v.fan_in for v in found.masked[:2]] == [4, 1]
    assert FloatTensor("head.weight", (3, 4)) in found.floats


def test_dense_goes_before_masked() -> None:
    assert [v.name for v in plan(Net(), Rules(dense=("[!h]*",), masked=("*",))).masked] == [
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize("rules", [Rules(dense=("classifier.*",)), Rules(masked=("HEAD.*",))])
def test_a_pattern_that_matches_nothing(rules: Rules) -> None:
    with pytest.raises(ConfigError, match=r"matches no parameter: got '(classifier|HEAD)"):
        plan(Net(), rules)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Linear(2, 3), "weight"),
        (nn.Conv1d(2, 3, 1), "weight"),
        (nn.Conv3d(2, 3, 1), "weight"),
        (nn.ConvTranspose1d(2, 3, 1), "weight"),
        (nn.ConvTranspose3d(2, 3, 1), "weight"),
    ],
)
def test_a_layer_by_itself(layer: nn.Module, name: str) -> None:
    assert [(v.name, v.fan_in) for v in plan(layer).masked] == [(name, 2)]


def test_attention_over_other_sizes_has_three_projections() -> None:
    found = plan(nn.MultiheadAttention(4, 2, kdim=3, vdim=5))
    assert [(v.name, v.fan_in) for v in found.masked] == [
        ("q_proj_weight", 4),
        ("k_proj_weight", 3),
        ("v_proj_weight", 5),
        ("out_proj.weight", 4),
    ]


def test_a_transposed_convolution_sums_over_at_least_one_input() -> None:
    assert plan(nn.ConvTranspose2d(1, 3, 2, stride=4)).masked[0].fan_in == 1


@pytest.mark.parametrize("module", [nn.BatchNorm2d(3), nn.ReLU(), nn.Embedding(3, 2)])
def test_nothing_to_mask(module: nn.Module) -> None:
    with pytest.raises(ConfigError, match=f"nothing to mask: in {type(module).__name__}"):
        plan(module)


def tied_parameters() -> nn.Module:
    module = nn.ModuleDict({"layer": nn.Linear(4, 4), "other": nn.Linear(4, 4)})
    module["other"].weight = module["layer"].weight
    return module


def tied_memory() -> nn.Module:
    module = nn.ModuleDict({"layer": nn.Linear(4, 4), "other": nn.Embedding(4, 4)})
    module["other"].weight.data = module["layer"].weight.data
    return module


def tied_modules() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.ModuleDict({"layer": layer, "other": layer})


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


def pruned(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    return layer


def in_dict(layer: nn.Module) -> nn.Module:
    return nn.ModuleDict({"layer": layer})


FORBIDDEN: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: in_dict(nn.LSTM(4, 4)), "a recurrent layer"),
    (lambda: in_dict(nn.GRU(4, 4)), "a recurrent layer"),
    (tied_parameters, "tied to other"),
    (tied_memory, "tied to other"),
    (tied_modules, "tied to other"),
    (lambda: in_dict(nn.LazyLinear(4)), "a lazy parameter"),
    (lambda: in_dict(parametrizations.weight_norm(nn.Linear(4, 4))), "computed from others"),
    (lambda: in_dict(parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))), "computed from others"),
    (lambda: in_dict(old_weight_norm(nn.Linear(4, 4))), "computed from others"),
    (lambda: in_dict(pruned(nn.Linear(4, 4))), "computed from others"),
    (lambda: in_dict(nn.Linear(4, 4).half()), "torch.float16; wanted torch.float32"),
    (lambda: in_dict(nn.Linear(4, 4, dtype=torch.complex64)), "torch.complex64; wanted torch.float32"),
]


@pytest.mark.parametrize(("make", "told"), FORBIDDEN)
def test_what_cannot_be_masked_is_named(make: Callable[[], nn.Module], told: str) -> None:
    module = make()
    with pytest.raises(
        ConfigError, match=rf"cannot be masked: got .*{re.escape(told)}.*; in (layer|other)\.\w+"
    ):
        plan(module)


def test_every_recurrent_layer_is_named() -> None:
    with pytest.raises(ConfigError, match=r"recurrent.*in rnn\.(weight|bias)_"):
        plan(nn.ModuleDict({"head": nn.Linear(2, 2), "rnn": nn.RNN(2, 2)}))


def test_a_layer_that_is_used_twice_is_dense_by_all_its_names_or_refused() -> None:
    module = nn.ModuleDict({"body": nn.Linear(4, 4), "twice": tied_modules()})
    with pytest.raises(ConfigError, match=r"tied to twice.layer.weight; .*in twice.other.weight"):
        plan(module, Rules(dense=("twice.layer.*",)))
    assert [v.name for v in plan(module, Rules(dense=("twice.*",))).masked] == ["body.weight"]


def test_what_is_forbidden_may_stay_a_float() -> None:
    module = nn.ModuleDict(
        {
            "body": nn.Linear(4, 4),
            "rnn": nn.LSTM(4, 4),
            "normed": parametrizations.weight_norm(nn.Linear(4, 4)),
            "embed": nn.Embedding(4, 4),
            "head": nn.Linear(4, 4),
        }
    )
    module["head"].weight = module["embed"].weight
    found = plan(module, Rules(dense=("rnn.*", "normed.*", "head.weight")))
    assert [v.name for v in found.masked] == ["body.weight"]
    floats = {v.name for v in found.floats}
    assert {"rnn.weight_hh_l0", "head.weight", "normed.parametrizations.weight.original1"} <= floats


class Odd(nn.Module):
    def __init__(self, buffer: torch.Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("odd", buffer)


@pytest.mark.parametrize(
    "buffer",
    [torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2) * 1j],
)
def test_state_that_is_no_float32(buffer: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=f"got {buffer.dtype}; wanted torch.float32; in odd"):
        plan(Odd(buffer))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_neither(dtype: torch.dtype) -> None:
    found = plan(Odd(torch.zeros(2, dtype=dtype)))
    assert [v.name for v in found.floats] == ["layer.bias"]


def test_whole_numbers_as_a_parameter() -> None:
    module = nn.Linear(4, 4)
    module.code = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ConfigError, match=r"got torch.int8; wanted torch.float32; in code"):
        plan(module)


@pytest.mark.filterwarnings("ignore:.*quantiz:UserWarning", "ignore:.*quantiz:DeprecationWarning")
def test_quantised_state() -> None:
    with pytest.raises(ConfigError, match=r"cannot be stored: got lazy, quantised or no tensor; in odd"):
        plan(Odd(torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8)))


def test_state_that_is_no_tensor() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"version": 1}

    with pytest.raises(ConfigError, match=r"cannot be stored: .* in _extra_state"):
        plan(Extra(2, 2))
