"""Adam for a few steps: what a client has before it sends its vote."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from pemn.spec import ModelSpec

_SHARE_BEFORE = 1 / 5
"""Of a round's steps: so many more count as taken, with gradients as large as the layer's are and of no direction."""


class ScoreAdam(torch.optim.Adam):
    """Adam that begins gently, and knows before its first step how large the gradients of a layer are.

    A fresh Adam divides its first gradient by that gradient's own size: every score makes a whole step, also one whose
    gradient is a thousandth of the others' and means nothing. It takes tens of steps until it knows better, and a
    client has hardly more in a round. Here Adam begins as if it had taken a fifth as many steps as the round has: its
    second moments are the mean square of the layer's first gradient, and its first moments 0, so that the steps grow.

    Where weights are sums of T values, their scores' steps are shorter by the cube root of T. All of them move a weight
    together; but they begin at different scores, so that only some of their masks change.

    Source: Adam is Kingma and Ba's, ICLR 2015, Algorithm 1; the rest is ours (docs/algorithm.md).

    Args:
        rows: Scores, float32 [num_bits], one row a client; one without a gradient stays as it is.
        model: The network.
        num_steps: How many steps each row is going to take.
        learning_rate: In units of the score.
    """

    def __init__(
        self, rows: Sequence[Tensor], num_steps: Sequence[int], model: ModelSpec, learning_rate: float
    ) -> None:
        self._rows, self._parts = rows, list[tuple[slice, list[int]]]()
        self._steps_before = [steps * _SHARE_BEFORE for steps in num_steps]
        groups, begin = [], 0
        layers = zip(model.layers, model.bit_sizes, strict=True)
        for terms, run in groupby(layers, lambda pair: pair[0].terms):
            sizes = [size for _, size in run]
            part = slice(begin, begin + sum(sizes))
            self._parts.append((part, sizes))
            groups.append({"params": [row[part] for row in rows], "lr": learning_rate / math.cbrt(terms)})
            begin = part.stop
        super().__init__(groups, fused=True)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Takes a step with the gradients of the rows."""
        for group, (part, sizes) in zip(self.param_groups, self._parts, strict=True):
            for row, steps, scores in zip(self._rows, self._steps_before, group["params"], strict=True):
                scores.grad = None if row.grad is None else row.grad[part]
                if scores.grad is not None and not self.state[scores]:
                    self.state[scores] = _begin(scores.grad, sizes, steps, group["betas"][1])
        return super().step(closure)


def _begin(gradient: Tensor, sizes: list[int], steps: float, decay: float) -> dict[str, Tensor]:
    """Returns what Adam would know of scores after the steps before."""
    layers = torch.split(gradient, sizes)
    squares = torch.cat([layer.square().mean().expand(layer.shape) for layer in layers])
    return {
        "step": torch.tensor(steps, device=gradient.device),
        "exp_avg": torch.zeros_like(gradient),
        "exp_avg_sq": squares * (1 - decay**steps),
    }
