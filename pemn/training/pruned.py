"""The two baselines of the paper: pruning before training, to a given size, and training what is left.

    random       random weights go
    magnitude    the smallest of each layer's initial weights go

Each layer loses the same share. What is left trains as usual; what is gone is +0.0 and stays so.

Source: PEMN (NeurIPS 2022), Section 4.3. It compares by size and does not say how sizes become shares; ours is
`num_kept`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pemn.errors import ConfigError
from pemn.generator import Purpose, child, permutation
from pemn.training.rules import Plan

How = Literal["random", "magnitude"]
Positions = Literal["seed", "bitmap"]
"""What says which weights are left: the seed that they were drawn from, or a bit a weight."""

SEED_BYTES = 8
FLOAT_BYTES = 4


def position_bytes(positions: Positions, num_weights: int) -> int:
    """Returns what it takes to say which of so many weights are left."""
    return SEED_BYTES if positions == "seed" else -(-num_weights // 8)


def num_kept(num_bytes: float, positions: Positions, num_weights: int) -> int:
    """Returns how many of the prunable weights fit a size: four bytes each, besides their positions.

    Args:
        num_bytes: For prunable weights and positions.
        positions: How these are said.
        num_weights: That there are.

    Raises:
        ConfigError: If not even one fits.
    """
    kept = int((num_bytes - position_bytes(positions, num_weights)) // FLOAT_BYTES)
    if kept < 1:
        least = position_bytes(positions, num_weights) + FLOAT_BYTES
        raise ConfigError(
            "size of a pruned network",
            got=f"{num_bytes:.0f} bytes for weights and positions",
            wanted=f"at least {least}, for one weight of {num_weights}",
        )
    return min(kept, num_weights)


class PrunedWeight(nn.Module):
    """The parametrization: weight -> what is left of it.

    Args:
        kept: bool, where something is left.
    """

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the weight with +0.0 where it was pruned, shaped as `weight`."""
        return torch.where(self.kept, weight, 0.0)


def prune_model(module: nn.Module, plan: Plan, kept: int, how: How, seed: int) -> int:
    """Prunes a module in place, before it is trained.

    Args:
        module: With its initial weights.
        plan: What of it is prunable: what PEMN would mask.
        kept: How many weights are to be left; shared among the layers in proportion, rounded down, but at least one.
        how: Which go.
        seed: 64-bit seed of `random`.

    Returns:
        How many are left.
    """
    total, left = sum(tensor.size for tensor in plan.masked), 0
    for index, tensor in enumerate(plan.masked):
        path, _, own = tensor.name.rpartition(".")
        weight = module.get_parameter(tensor.name)
        count = max(kept * tensor.size // total, 1)
        if how == "random":
            order = torch.from_numpy(permutation(child(seed, Purpose.SCORES, index), tensor.size))
        else:
            order = weight.detach().abs().flatten().cpu().argsort(descending=True, stable=True)
        pattern = torch.zeros(tensor.size, dtype=torch.bool)
        pattern[order[:count]] = True
        pruned = PrunedWeight(pattern.view(tensor.shape).to(weight.device))
        parametrize.register_parametrization(module.get_submodule(path), own, pruned)
        left += count
    return left
