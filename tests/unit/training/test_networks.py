"""The built-in networks: what goes in and out, in which order, and what they compute."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

from pemn.errors import ConfigError
from pemn.export.skeleton import skeleton
from pemn.prototype import Strategy
from pemn.spec import InputContract
from pemn.training.models import model_spec
from pemn.training.networks import build
from pemn.training.networks.registry import _FAMILIES
from pemn.training.networks.resnet import Shortcut
from pemn.training.networks.vit import Attention

torch.set_num_threads(1)

MNIST, CIFAR, OBLONG = (1, 28, 28), (3, 32, 32), (2, 16, 24)
WITHOUT_FLOATS = ["mlp-16-12", "cnn-8-12-16", "conv-4", "conv-6", "conv-8"]
WITH_FLOATS = ["resnet-20", "convmixer-2-16", "convmixer-3-8-p4", "vit-2-24"]
ALL = [(name, shape) for name in WITHOUT_FLOATS + WITH_FLOATS for shape in (MNIST, CIFAR)] + [
    ("conv-10", CIFAR),
    ("resnet-110", MNIST),
    ("conv-4", OBLONG),
    ("convmixer-3-8-p4", OBLONG),
    ("vit-2-24", OBLONG),
]


def make(architecture: str, shape: tuple[int, int, int] = CIFAR, num_classes: int = 10) -> nn.Module:
    """A network that lets images through to its end, and whose norms do something."""
    torch.manual_seed(5)
    module = build(architecture, shape, num_classes)
    for name, tensor in module.state_dict().items():
        if tensor.dim() > 1:
            nn.init.kaiming_normal_(tensor)
        elif tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5) if name.endswith(("weight", "var")) else tensor.uniform_(-0.5, 0.5)
    return module.eval()


def images(count: int, shape: tuple[int, int, int] = CIFAR) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(("architecture", "shape"), ALL)
def test_every_network_classifies_each_image_by_itself(
    architecture: str, shape: tuple[int, int, int]
) -> None:
    module, batch = make(architecture, shape, 7), images(3, shape)
    with torch.no_grad():
        logits = module(batch)
        assert logits.shape == (3, 7)
        assert logits.dtype == torch.float32
        assert torch.equal(logits, module(batch))
        torch.testing.assert_close(logits[1:2], module(batch[1:2]), rtol=1e-3, atol=1e-4)
    assert (logits[0] - logits[1]).abs().max() > 0.005 * logits.abs().max()


@pytest.mark.parametrize(("architecture", "shape"), ALL)
def test_everything_trainable_takes_part(architecture: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(3)
    module = build(architecture, shape, 10)
    (module(images(4, shape)) ** 2).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(("architecture", "shape"), ALL)
def test_the_order_of_the_state_is_the_order_of_the_computation(
    architecture: str, shape: tuple[int, int, int]
) -> None:
    """Layers are counted from the shallow end, and ties between prototypes go to the first."""
    module = make(architecture, shape)
    run: list[str] = []
    for name, part in module.named_modules():
        if list(part.parameters(recurse=False)) and not list(part.children()):
            part.register_forward_hook(lambda _m, _i, _o, name=name: run.append(name))
    module(images(2, shape))
    state = [name.rpartition(".")[0] for name in module.state_dict()]
    assert run == [name for name in dict.fromkeys(state) if name in run]
    assert set(dict(module.named_parameters())) <= set(module.state_dict())
    assert len(run) == len(set(run))


@pytest.mark.parametrize("architecture", WITHOUT_FLOATS + WITH_FLOATS)
def test_one_seed_of_torch_gives_one_network(architecture: str) -> None:
    first, second = make(architecture).state_dict(), make(architecture).state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("architecture", [*WITHOUT_FLOATS, *WITH_FLOATS, "conv-10"])
def test_no_layer_has_a_bias_and_the_floats_are_those_that_the_file_names(architecture: str) -> None:
    floats = set()
    for name, part in make(architecture).named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            assert part.bias is None, name
        else:
            floats |= {f"{type(part).__name__}.{key}" for key, _ in part.named_parameters(recurse=False)}
            floats |= {f"{type(part).__name__}.{key}" for key, _ in part.named_buffers(recurse=False)}
    batch_norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    wanted = {
        "resnet": {f"BatchNorm2d.{key}" for key in batch_norm},
        "convmixer": {f"BatchNorm2d.{key}" for key in batch_norm},
        "vit": {"LayerNorm.weight", "LayerNorm.bias", "ViT.cls", "ViT.position"},
    }
    assert floats == wanted.get(architecture.split("-")[0], set())


@pytest.mark.parametrize("architecture", ["conv-4", "mlp-16-12", "cnn-8-12"])
def test_networks_without_floats_are_exported(architecture: str) -> None:
    contract = InputContract(MNIST, (0.5,), (0.25,), tuple("abcdefghij"))
    spec = model_spec(architecture, contract, 1, Strategy("mp"))
    assert skeleton(build(architecture, MNIST, 10), spec)


# What the layers compute, by definitions that share no code with them.


def batch_norm(x: Tensor, norm: nn.Module) -> Tensor:
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, std = norm.running_mean, (norm.running_var + 1e-5).sqrt()
    scale, shift = (norm.weight / std), norm.bias - mean * norm.weight / std
    return x * scale[:, None, None] + shift[:, None, None]


def layer_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@torch.no_grad()
def test_convmixer_is_its_definition() -> None:
    module, batch = make("convmixer-2-6"), images(2)
    state = module.state_dict()
    norms = dict(module.named_modules())
    # Patches of 2, by hand: [batch, grid, grid, channel * down * across] times the first layer.
    patches = batch.reshape(2, 3, 16, 2, 16, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, 16, 16, 12)
    x = (patches @ state["embed.weight"].reshape(6, 12).T).permute(0, 3, 1, 2)
    x = batch_norm(gelu(x), norms["norm"])
    for i in range(2):
        mixed = torch.zeros_like(x)
        padded = nn.functional.pad(x, (2, 2, 2, 2))
        for down in range(5):
            for across in range(5):
                kernel = state[f"blocks.{i}.depthwise.weight"][:, 0, down, across]
                mixed += kernel[:, None, None] * padded[:, :, down : down + 16, across : across + 16]
        x = x + batch_norm(gelu(mixed), norms[f"blocks.{i}.norm1"])
        x = torch.einsum("oc,bchw->bohw", state[f"blocks.{i}.pointwise.weight"][:, :, 0, 0], x)
        x = batch_norm(gelu(x), norms[f"blocks.{i}.norm2"])
    wanted = x.flatten(2).mean(2) @ state["head.weight"].T
    torch.testing.assert_close(module(batch), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_vit_is_its_definition() -> None:
    module, batch = make("vit-2-12"), images(2)
    state = module.state_dict()
    patches = batch.reshape(2, 3, 8, 4, 8, 4).permute(0, 2, 4, 1, 3, 5).reshape(2, 64, 48)
    x = patches @ state["embed.weight"].reshape(12, 48).T
    x = torch.cat((state["cls"].repeat(2, 1, 1), x), 1) + state["position"]
    for i in range(2):
        y = layer_norm(x, state, f"blocks.{i}.norm1") @ state[f"blocks.{i}.attention.qkv.weight"].T
        q, k, v = (part.reshape(2, 65, 8, 64) for part in y.split(512, dim=2))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(8).softmax(-1)
        y = torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(2, 65, 512)
        x = x + y @ state[f"blocks.{i}.attention.out.weight"].T
        y = layer_norm(x, state, f"blocks.{i}.norm2") @ state[f"blocks.{i}.mlp.linear1.weight"].T
        x = x + gelu(y) @ state[f"blocks.{i}.mlp.linear2.weight"].T
    wanted = layer_norm(x[:, 0], state, "norm") @ state["head.weight"].T
    torch.testing.assert_close(module(batch), wanted, rtol=1e-4, atol=1e-5)


def test_vit_drops_a_tenth_in_four_places_and_attends_with_eight_heads() -> None:
    module = build("vit-3-12", CIFAR, 10)
    assert [part.p for part in module.modules() if isinstance(part, nn.Dropout)] == [0.1] * (1 + 3 * 3)
    assert [part.heads for part in module.modules() if isinstance(part, Attention)] == [8] * 3


@torch.no_grad()
def test_a_residual_block_is_its_definition() -> None:
    module = make("resnet-20")
    block = module.get_submodule("blocks.3")  # the first of 32 channels
    state, norms = block.state_dict(), dict(block.named_modules())
    x = torch.rand(2, 16, 9, 7)
    y = nn.functional.conv2d(x, state["conv1.weight"], stride=2, padding=1)
    y = batch_norm(y, norms["norm1"]).clamp(min=0)
    y = batch_norm(nn.functional.conv2d(y, state["conv2.weight"], padding=1), norms["norm2"])
    y[:, :16] += x[:, :, ::2, ::2]  # option A: the other 16 channels get zeros
    torch.testing.assert_close(block(x), y.clamp(min=0), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_resnets_three_stages_halve_the_image_twice() -> None:
    module = make("resnet-32")
    seen: list[tuple[int, ...]] = []
    for block in module.get_submodule("blocks").children():
        block.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    module(images(1))
    assert seen == [(16, 32, 32)] * 5 + [(32, 16, 16)] * 5 + [(64, 8, 8)] * 5
    assert sum(isinstance(part, Shortcut) for part in module.modules()) == 2


@torch.no_grad()
@pytest.mark.parametrize(("architecture", "num_blocks"), [("conv-4", 2), ("conv-10", 5)])
def test_conv_is_blocks_of_two_convolutions_and_a_pooling(architecture: str, num_blocks: int) -> None:
    module, x = make(architecture), images(2)
    weights = list(module.state_dict().values())
    for i in range(num_blocks):
        for weight in weights[2 * i : 2 * i + 2]:
            x = nn.functional.conv2d(x, weight, padding=1).clamp(min=0)
        x = x.reshape(2, x.shape[1], x.shape[2] // 2, 2, x.shape[3] // 2, 2).amax((3, 5))
    x = x.reshape(2, -1)
    first, second, head = weights[2 * num_blocks :]
    wanted = (x @ first.T).clamp(min=0) @ second.T
    torch.testing.assert_close(module(images(2)), wanted.clamp(min=0) @ head.T, rtol=1e-4, atol=1e-6)


# Names.


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mlp",
        "mlp-1",
        "mlp-100000",
        "cnn-8-",
        "conv-2",
        "conv-04",
        "conv-12",
        "resnet-18",
        "resnet-32-",
        "convmixer-6",
        "convmixer-0-8",
        "convmixer-6-256-2",
        "convmixer-6-256-p0",
        "convmixer-100-8",
        "vit-6",
        "vit-6-1",
        "vit-6-256-p4",
        "VIT-6-256",
        " vit-6-256",
        "vit-6-256\n",
        "vit-٦-256",
    ],
)
def test_names_of_nothing_are_refused_with_those_of_the_family_or_all(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown architecture") as caught:
        build(name, CIFAR, 10)
    told = ["mlp-W1", "cnn-C1", "conv-4", "resnet-56", "convmixer-D-W", "vit-D-W", "timm:", "PKG:"]
    stem = re.split("[-:]", name)[0]
    meant = [wanted for wanted in told if re.split("[-:]", wanted)[0] == stem]
    assert [wanted for wanted in told if wanted in str(caught.value)] == (meant or told)
    assert len(str(caught.value)) < 300


def test_what_a_family_says_of_its_names_is_so() -> None:
    for family in _FAMILIES:
        example = re.findall(r"[a-z_.0-9:-]*[0-9]|my_models[a-z.:]*", f"{family.NAMES} {family.DETAILS}")[-1]
        assert next(other for other in _FAMILIES if other.PATTERN.fullmatch(example)) is family


def test_names_fit_the_wire() -> None:
    longest = "mlp" + "-22" * 84
    assert len(longest) == 255
    assert build(longest + "2", CIFAR, 10)(images(1)).shape == (1, 10)
    with pytest.raises(ConfigError, match=r"name of the network: got 257 characters; wanted at most 256"):
        build(longest + "-2", CIFAR, 10)


@pytest.mark.parametrize(
    ("architecture", "shape", "wanted"),
    [
        ("conv-10", MNIST, "32 pixels a side for 5 poolings"),
        ("conv-4", (3, 32, 3), "4 pixels a side for 2 poolings"),
        ("convmixer-2-8", (1, 28, 29), "multiples of 2"),
        ("convmixer-2-8-p3", CIFAR, "multiples of 3"),
        ("vit-2-8", (1, 30, 32), "multiples of 4"),
        ("cnn-2-2-2", (1, 4, 4), "2 values a group"),
    ],
)
def test_images_that_a_network_cannot_take_are_refused(
    architecture: str, shape: tuple[int, int, int], wanted: str
) -> None:
    with pytest.raises(ConfigError, match=wanted):
        build(architecture, shape, 10)
