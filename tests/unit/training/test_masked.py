"""Any module with masked weights: what it computes, that no bit of the frozen weights moves, and what it refuses."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from pemn.errors import ConfigError, LocalError
from pemn.generator import Purpose, child, word
from pemn.mask import Mask
from pemn.prototype import Strategy
from pemn.rebuild import frozen_weights, rebuild
from pemn.spec import InputContract, Layer, ModelSpec, to_float32
from pemn.training.masked import mask_model, mask_of, scores_of, set_scores, unmask
from pemn.training.rules import Rules, plan
from pemn.training.scores import ScoreRule

CONTRACT = InputContract((3, 6, 6), (0.5,) * 3, (0.25,) * 3, ("a", "b", "c"))
RULES = ["topk:0.5", "threshold", "bernoulli"]


class Net(nn.Module):
    """A convolution, a norm with statistics, attention and a head: 1,235 masked weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.GELU())
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.body = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(8, 57), nn.GELU(), nn.Linear(57, 5))})
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2)  # N x 16 x 8
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        logits: Tensor = self.head(self.body["mlp"](tokens).mean(1))
        return logits


def spec_of(
    module: nn.Module, strategy: str = "rp:1e-1", rules: Rules | None = None, seed: int = 9
) -> ModelSpec:
    found = plan(module, rules)
    layers = tuple(Layer(v.name, v.shape, to_float32(2 / math.sqrt(v.fan_in))) for v in found.masked)
    return ModelSpec("net", CONTRACT, layers, seed, Strategy.parse(strategy), bytes(16), floats=found.floats)


def net() -> Net:
    torch.manual_seed(1)
    return Net()


def masked(rule: str = "topk:0.5", strategy: str = "rp:1e-1") -> tuple[Net, ModelSpec]:
    module = net()
    spec = spec_of(module, strategy)
    assert mask_model(module, spec, ScoreRule.parse(rule)) is module
    return module, spec


def images(num_images: int = 4) -> Tensor:
    return torch.randn(num_images, 3, 6, 6, generator=torch.Generator().manual_seed(2))


def weights_of(module: nn.Module, spec: ModelSpec) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with torch.no_grad():
        parts = [module.get_submodule(v.name.rpartition(".")[0]) for v in spec.layers]
        weights = [getattr(p, v.name.rpartition(".")[2]) for p, v in zip(parts, spec.layers, strict=True)]
    return torch.cat([weight.reshape(-1) for weight in weights]).cpu().numpy()


def same_bits(module: nn.Module, spec: ModelSpec) -> bool:
    """Whether the weights that a module computes with in evaluation are those that any end rebuilds from its mask."""
    training = module.training
    wanted = rebuild(spec, mask_of(module, spec))
    got = weights_of(module.eval(), spec)
    module.train(training)
    return got.tobytes() == wanted.tobytes()


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def train(module: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 3) -> list[float]:
    labels = torch.arange(4) % 3
    losses = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(images()), labels)
        backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("strategy", ["full", "one-layer", "mp", "rp:1e-1", "rp:1e-5"])
@pytest.mark.parametrize("rule", RULES)
def test_the_weights_are_those_that_any_end_rebuilds(rule: str, strategy: str) -> None:
    module, spec = masked(rule, strategy)
    assert spec.num_params == 216 + 192 + 64 + 456 + 285 + 15
    assert same_bits(module, spec)
    train(module, torch.optim.AdamW(module.parameters(), 0.05))
    assert same_bits(module, spec)


def test_everything_kept_is_the_frozen_weights() -> None:
    module, spec = masked("topk:1.0")
    assert weights_of(module, spec).tobytes() == frozen_weights(spec).tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_training_learns_scores_and_floats(rule: str) -> None:
    module, spec = masked(rule)
    before, floats = scores_of(module, spec), module.head.bias.detach().clone()
    torch.manual_seed(3)
    losses = train(module, torch.optim.AdamW(module.parameters(), 0.02), 40)
    assert np.mean(losses[-10:]) < (0.9 if rule == "bernoulli" else 0.3) * losses[0]
    assert not torch.equal(scores_of(module, spec), before)
    assert not torch.equal(module.head.bias, floats)


def test_what_is_not_masked_stays_an_ordinary_parameter() -> None:
    plain = dict(net().named_parameters())
    module, spec = masked()
    names = {layer.name for layer in spec.layers}
    kept = dict(module.named_parameters())
    for name, parameter in plain.items():
        if name not in names:
            assert torch.equal(kept.pop(name), parameter)
    assert len(kept) == len(names)
    assert all("parametrizations" in name for name in kept)


def test_the_optimizer_that_had_the_weights_has_the_scores() -> None:
    module = net()
    module.head.weight.requires_grad_(False)
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    spec = spec_of(module)
    mask_model(module, spec, ScoreRule.parse("topk:0.5"))
    before = scores_of(module, spec)
    train(module, optimizer, 1)
    moved = torch.split(scores_of(module, spec) != before, list(spec.sizes))
    assert all(part.any() for part in moved)


def test_first_scores_are_uniform_words_of_the_seed() -> None:
    """(2 b + 1 - 2^24) / 2^24 / sqrt(fan_in), b the top 24 bits of a word; docs/wire.md, "Random words"."""
    module, spec = masked()
    bounds = [to_float32(1 / math.sqrt(v.fan_in)) for v in plan(net()).masked]
    for index, (part, bound) in enumerate(
        zip(torch.split(scores_of(module, spec), list(spec.sizes)), bounds, strict=True)
    ):
        key = child(spec.seed, Purpose.SCORES, index)
        exact = [
            Fraction(2 * (word(key, i) >> 40) + 1 - 2**24, 2**24) * Fraction(bound) for i in range(len(part))
        ]
        assert part.tolist() == [to_float32(float(value)) for value in exact]
        assert 0.9 * bound < part.abs().max() < bound
        assert part.abs().min() > 0


def test_masking_takes_no_random_number_of_the_caller() -> None:
    module = net()
    state = torch.get_rng_state()
    mask_model(module, spec_of(module), ScoreRule("bernoulli"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rule", RULES)
def test_scores_go_in_and_come_out(rule: str) -> None:
    module, spec = masked(rule)
    scores = torch.randn(spec.num_params, generator=torch.Generator().manual_seed(4))
    given = scores.clone()
    set_scores(module, spec, given)
    given.zero_()
    scores_of(module, spec).zero_()
    assert torch.equal(scores_of(module, spec), scores)
    if rule != "topk:0.5":
        assert mask_of(module, spec) == Mask.from_bits((scores > 0).numpy(), spec.sizes)
    else:
        sizes = [7, *spec.sizes]
        assert mask_of(module, spec).num_kept == sum(size - size // 2 for size in sizes[1:])


@pytest.mark.parametrize(
    "scores", [torch.zeros(3), torch.zeros(1228, dtype=torch.float64), torch.zeros(2, 614)]
)
def test_scores_of_another_network(scores: Tensor) -> None:
    module, spec = masked()
    assert spec.num_params == 1228
    with pytest.raises(LocalError, match=r"scores: got torch.float.*wanted torch.float32 \[1228\]"):
        set_scores(module, spec, scores)


def test_a_tied_mask_is_not_trained_here() -> None:
    _, spec = masked()
    module = net()
    with pytest.raises(LocalError, match="values that share a bit: got 2; wanted 1"):
        mask_model(module, replace(spec, tie=2))
    mask_model(module, spec)  # nothing has been changed


def test_scores_that_are_not_numbers_have_no_mask() -> None:
    module, spec = masked()
    set_scores(module, spec, torch.full((1228,), math.nan))
    with pytest.raises(ConfigError, match="scores that are not numbers"):
        mask_of(module, spec)


def test_bernoulli_draws_in_training_alone() -> None:
    module, _ = masked("bernoulli")
    torch.manual_seed(6)
    first, second = module.head.weight, module.head.weight
    assert not torch.equal(first, second)
    module.eval()
    assert torch.equal(module.head.weight, module.head.weight)
    module.train()
    torch.manual_seed(6)
    assert torch.equal(module.head.weight, first)


def test_attention_takes_its_fast_path() -> None:
    """torch has another kernel for attention in evaluation without gradients."""
    module, _ = masked()
    module.eval()
    with torch.no_grad():
        fast = module(images())
    torch.testing.assert_close(fast, module(images()), rtol=1e-4, atol=1e-5)


def test_cached_masks_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module, spec = masked()
    wanted = module(images())
    made: list[int] = []
    make = ScoreRule.mask

    def count(rule: ScoreRule, scores: Tensor, *, training: bool, uniform: Tensor | None) -> Tensor:
        made.append(scores.numel())
        return make(rule, scores, training=training, uniform=uniform)

    monkeypatch.setattr(ScoreRule, "mask", count)
    with parametrize.cached():
        assert torch.equal(module(images()), wanted)
    assert sorted(made) == sorted(spec.sizes)


def test_channels_last() -> None:
    module, spec = masked()
    wanted = mask_of(module, spec)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stem = module.get_parameter("stem.0.parametrizations.weight.original")
    assert not stem.is_contiguous()
    assert mask_of(module, spec) == wanted
    assert same_bits(module, spec)


def test_a_deep_copy_is_independent() -> None:
    module, spec = masked()
    before = scores_of(module, spec)
    other = copy.deepcopy(module)
    train(other, torch.optim.SGD(other.parameters(), 10.0))
    assert torch.equal(scores_of(module, spec), before)
    assert not torch.equal(scores_of(other, spec), before)
    assert same_bits(other, spec)


def test_state_dict() -> None:
    """The state has scores and floats and no frozen weights, and loads into another masked module."""
    module, spec = masked()
    plain = {name: tensor.shape for name, tensor in net().state_dict().items()}
    state = module.state_dict()
    assert {
        name.replace("parametrizations.", "").replace(".original", ""): v.shape for name, v in state.items()
    } == (plain)
    train(module, torch.optim.SGD(module.parameters(), 1.0))
    other, _ = masked()
    other.load_state_dict(module.state_dict())
    assert torch.equal(scores_of(other, spec), scores_of(module, spec))
    assert mask_of(other, spec) == mask_of(module, spec)
    assert torch.equal(other.eval()(images()), module.eval()(images()))


@pytest.mark.parametrize("rule", RULES)
def test_unmask(rule: str) -> None:
    module, spec = masked(rule)
    train(module, torch.optim.SGD(module.parameters(), 1.0))
    weights = rebuild(spec, mask_of(module, spec))
    logits = module.eval()(images())
    module.train()
    plain = unmask(copy.deepcopy(module))
    assert [type(part) for part in plain.modules()] == [type(part) for part in net().modules()]
    assert sorted(plain.state_dict()) == sorted(net().state_dict())
    assert weights_of(plain, spec).tobytes() == weights.tobytes()
    assert not any(plain.get_parameter(layer.name).requires_grad for layer in spec.layers)
    torch.testing.assert_close(plain.eval()(images()), logits)
    # The copy's class was the original's: that must still be masked, and can be unmasked too.
    assert same_bits(module, spec)
    assert weights_of(unmask(module), spec).tobytes() == weights.tobytes()


def test_unmask_leaves_the_parametrizations_of_others() -> None:
    module = nn.ModuleDict({"a": nn.Linear(4, 4), "b": parametrizations.weight_norm(nn.Linear(4, 4))})
    mask_model(module, spec_of(module, rules=Rules(dense=("b.*",))), ScoreRule("threshold"))
    unmask(module)
    assert "b.parametrizations.weight.original0" in module.state_dict()
    assert "a.weight" in module.state_dict()


def test_autocast() -> None:
    module, spec = masked()
    with torch.autocast("cpu", torch.bfloat16):
        logits = module(images())
        assert module.head.weight.dtype == torch.float32
    assert logits.dtype == torch.bfloat16
    backward(logits.float().sum())
    scores = module.get_parameter("head.parametrizations.weight.original")
    assert scores.grad is not None
    assert scores.grad.dtype == torch.float32
    assert same_bits(module, spec)


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_a_cast_module_says_so_and_no_frozen_weight_is_rounded(
    cast: Callable[[nn.Module], nn.Module],
) -> None:
    module, spec = masked("topk:1.0")
    cast(module)
    with pytest.raises(
        ConfigError, match=r"masked module was cast: got .*; wanted float32, with torch.autocast"
    ):
        module(images())
    with pytest.raises(ConfigError, match="masked module was cast"):
        mask_of(module, spec)
    assert weights_of(module.float(), spec).tobytes() == frozen_weights(spec).tobytes()


def test_a_cast_that_spares_no_integer() -> None:
    module, _ = masked()
    module.type(torch.float32)
    with pytest.raises(ConfigError, match="masked module was cast"):
        module(images())


# torch.compile complains of torch's own code.
COMPILES = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch"
)


def compare_compiled(module: nn.Module, inputs: Tensor, backend: str) -> None:
    """Holds output and gradients against those of a copy that is not compiled."""
    other = copy.deepcopy(module)
    wanted, found = other(inputs), torch.compile(module, backend=backend, fullgraph=True)(inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    backward(wanted.square().sum())
    backward(found.square().sum())
    for parameter, its_copy in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, its_copy.grad, rtol=1e-3, atol=1e-4)


@COMPILES
@pytest.mark.parametrize("rule", ["topk:0.5", "threshold"])
def test_compiled(rule: str) -> None:
    module, spec = masked(rule)
    compare_compiled(module, images(), "aot_eager")
    assert same_bits(module, spec)


@COMPILES
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_to_machine_code() -> None:
    layer = nn.Linear(9, 5)
    spec = spec_of(layer)
    mask_model(layer, spec, ScoreRule.parse("topk:0.3"))
    compare_compiled(layer, torch.randn(2, 9), "inductor")
    assert same_bits(layer, spec)


@COMPILES
def test_bernoulli_compiled_goes_on_from_the_generators_state() -> None:
    module, _ = masked("bernoulli")
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.manual_seed(7)
    first, second = compiled(images()), compiled(images())
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    torch.testing.assert_close(compiled(images()), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("rule", RULES)
def test_to_cuda_and_back(rule: str) -> None:
    module, spec = masked(rule)
    before, mask = scores_of(module, spec), mask_of(module, spec)
    module.cuda()
    assert scores_of(module, spec).is_cuda
    assert mask_of(module, spec) == mask
    assert same_bits(module, spec)
    made_there = net().cuda()
    mask_model(made_there, spec, ScoreRule.parse(rule))
    assert torch.equal(scores_of(made_there, spec).cpu(), before)
    assert same_bits(made_there, spec)
    module.cpu()
    assert torch.equal(scores_of(module, spec), before)
    assert same_bits(module, spec)


def spec_with(name: str, shape: tuple[int, ...]) -> ModelSpec:
    layers = (Layer("head.weight", (3, 5), 1.0), Layer(name, shape, 1.0))
    return ModelSpec("net", CONTRACT, layers, 1, Strategy.parse("full"), bytes(16))


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("body.mlp.3.weight", (3, 5), "tensor that the module does not have: in body.mlp.3.weight"),
        ("head.gain", (3, 5), "tensor that the module does not have: in head.gain"),
        ("neck.weight", (3, 5), "tensor that the module does not have: in neck.weight"),
        (
            "body.mlp.0.weight",
            (8, 57),
            r"shape of a layer: got \(57, 8\); wanted \(8, 57\); in body.mlp.0.weight",
        ),
    ],
)
def test_a_spec_of_another_module(name: str, shape: tuple[int, ...], told: str) -> None:
    module = net()
    state = module.state_dict()
    with pytest.raises(LocalError, match=told):
        mask_model(module, spec_with(name, shape), ScoreRule("threshold"))
    # Nothing has been changed.
    assert list(module.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_masking_twice() -> None:
    module, spec = masked()
    with pytest.raises(ConfigError, match=r"cannot be masked: got .*already masked.*in stem.0.weight"):
        mask_model(module, spec, ScoreRule("threshold"))


def test_a_tied_parameter() -> None:
    module, spec = net(), spec_of(net())
    module.body["mlp"][0].weight = module.attention.in_proj_weight  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"tied to body.mlp.0.weight; .*in attention.in_proj_weight"):
        mask_model(module, spec, ScoreRule("threshold"))


def test_a_half_precision_layer() -> None:
    module, spec = net(), spec_of(net())
    module.head.half()
    with pytest.raises(ConfigError, match=r"got torch.float16; wanted torch.float32; in head.weight"):
        mask_model(module, spec, ScoreRule("threshold"))


def test_a_lazy_layer() -> None:
    module, spec = net(), spec_of(net())
    module.head = nn.LazyLinear(3)
    with pytest.raises(ConfigError, match=r"lazy parameter; .*in head.weight"):
        mask_model(module, spec, ScoreRule("threshold"))


def test_a_module_without_memory() -> None:
    with torch.device("meta"):
        module = Net()
    with pytest.raises(ConfigError, match=r"meta device: .*in stem.0.weight"):
        mask_model(module, spec_of(net()), ScoreRule("threshold"))


@pytest.mark.parametrize("read", [scores_of, mask_of])
def test_a_module_that_is_not_masked(read: Callable[[nn.Module, ModelSpec], object]) -> None:
    with pytest.raises(LocalError, match=r"layer that is not masked: in stem.0.weight"):
        read(net(), spec_of(net()))


def test_a_masked_weight_cannot_be_assigned() -> None:
    module, _ = masked()
    with pytest.raises(RuntimeError, match="right_inverse"):
        module.head.weight = torch.zeros(3, 5)
