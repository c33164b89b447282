"""The paper's two baselines."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pemn.errors import ConfigError
from pemn.training.networks import build
from pemn.training.pruned import How, Positions, num_kept, position_bytes, prune_model
from pemn.training.rules import plan

SHAPE = (3, 8, 8)


def network() -> nn.Module:
    torch.manual_seed(3)
    return build("convmixer-2-16-p2", SHAPE, 10)


@pytest.mark.parametrize(
    ("positions", "shares"), [("seed", (10, 8, 6, 4)), ("bitmap", (6.875, 4.875, 2.875, 0.875))]
)
def test_sizes_become_the_shares_of_the_rule(positions: Positions, shares: tuple[float, ...]) -> None:
    """At 90, 92, 94 and 96 % saved of a million weights."""
    for percent, share in zip((90, 92, 94, 96), shares, strict=True):
        num_bytes = 4_000_000 * (1 - percent / 100)
        kept = num_kept(num_bytes, positions, 1_000_000)
        assert 100 * kept / 1_000_000 == pytest.approx(share, abs=0.0005)
        assert 4 * kept + position_bytes(positions, 1_000_000) <= num_bytes


def test_a_size_too_small_or_too_large() -> None:
    assert num_kept(12, "seed", 50) == 1
    assert num_kept(1e9, "seed", 50) == 50
    with pytest.raises(
        ConfigError, match=r"size of a pruned network: got 11 bytes.*at least 12, for one weight of 50"
    ):
        num_kept(11, "seed", 50)


@pytest.mark.parametrize("how", ["random", "magnitude"])
def test_every_layer_loses_the_same_share_and_all_else_stays(how: How) -> None:
    before, module = network(), network()
    found = plan(module)
    total = sum(tensor.size for tensor in found.masked)
    left = prune_model(module, found, total // 10, how, seed=5)
    state = before.state_dict()
    kept = 0
    for tensor in found.masked:
        weight = module.get_submodule(tensor.name.removesuffix(".weight")).weight
        assert isinstance(weight, torch.Tensor)
        inside = weight != 0
        assert int(inside.sum()) == max(total // 10 * tensor.size // total, 1)
        assert torch.equal(weight[inside], state[tensor.name][inside])
        kept += int(inside.sum())
        if how == "magnitude":
            assert state[tensor.name][inside].abs().min() >= state[tensor.name][~inside].abs().max()
    assert left == kept
    for other in found.floats:
        assert torch.equal(module.state_dict()[other.name], state[other.name])


def test_random_follows_the_seed_alone() -> None:
    def pattern(seed: int, weights: int) -> torch.Tensor:
        torch.manual_seed(weights)
        module = build("convmixer-2-16-p2", SHAPE, 10)
        prune_model(module, plan(module), 500, "random", seed)
        return torch.cat(
            [kept.flatten() for name, kept in module.state_dict().items() if name.endswith("kept")]
        )

    assert torch.equal(pattern(1, 1), pattern(1, 2))
    assert not torch.equal(pattern(1, 1), pattern(2, 1))


def test_layers_of_one_shape_are_pruned_apart_and_keep_a_weight_each() -> None:
    module = nn.Sequential(
        nn.Linear(20, 20, bias=False), nn.Linear(20, 20, bias=False), nn.Linear(20, 2, bias=False)
    )
    assert prune_model(module, plan(module), 4, "random", 1) == 1 + 1 + 1
    first, second, last = (module.get_submodule(str(index)).weight for index in range(3))
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    assert isinstance(last, torch.Tensor)
    assert not torch.equal(first != 0, second != 0)
    assert int(last.count_nonzero()) == 1


def test_what_is_gone_stays_gone_and_what_is_left_trains() -> None:
    module = network()
    found = plan(module)
    prune_model(module, found, 400, "magnitude", seed=1)
    layer = module.get_submodule(found.masked[1].name.removesuffix(".weight"))
    first = layer.weight.detach().clone()  # type: ignore[operator]
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.randn(8, *SHAPE)).square().mean().backward()
        optimizer.step()
    after = layer.weight
    assert isinstance(after, torch.Tensor)
    assert torch.equal(after == 0, first == 0)
    assert not torch.signbit(after[after == 0]).any()
    assert (after[first != 0] != first[first != 0]).any()


def test_the_pattern_is_in_the_state() -> None:
    one, other = network(), network()
    prune_model(one, plan(one), 300, "random", seed=1)
    prune_model(other, plan(other), 300, "random", seed=2)
    other.load_state_dict(one.state_dict())
    image = torch.randn(2, *SHAPE)
    assert torch.equal(one.eval()(image), other.eval()(image))
