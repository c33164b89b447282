"""Scores decide which frozen weights are kept, and are trained in the weights' place.

    rule         mask m of the scores s                                   gradient handed to s
    topk:K       the share K with the largest |s| of each layer           dL/dm * sign(s), kept or dropped
    threshold    s > 0, as p > 1/2 with p = sigmoid(s)                    dL/dm
    bernoulli    drawn, 1 with probability p; in evaluation p > 1/2       dL/dm * p * (1 - p)

The weight is w = m * frozen, so dL/dm = dL/dw * frozen: the step of the mask is taken straight through. `threshold`
leaves out the slope of the sigmoid, which would all but stop a score that has become large.

Source: topk is edge-popup (Ramanujan et al., CVPR 2020) as PEMN uses it (NeurIPS 2022, equations 2 and 3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pemn.errors import ConfigError

_TOPK = re.compile(r"topk:([0-9.]+(?:e-?[0-9]+)?)")


@dataclass(frozen=True)
class ScoreRule:
    """How a layer's scores become its mask.

    Attributes:
        kind: `topk`, `threshold` or `bernoulli`.
        fraction: For `topk`, the share of a layer's weights that is kept, 0 < fraction <= 1; else 1.
    """

    kind: str
    fraction: float = 1.0

    def __post_init__(self) -> None:
        """Checks that there is such a rule.

        Raises:
            ConfigError: If there is not.
        """
        if self.kind == "topk" and 0.0 < self.fraction <= 1.0:
            return
        if self.kind not in ("threshold", "bernoulli") or self.fraction != 1.0:
            raise _unknown(self)

    @classmethod
    def parse(cls, text: str) -> ScoreRule:
        """Reads `topk:K`, `threshold` or `bernoulli`.

        Raises:
            ConfigError: If `text` is none of these or K is not in (0, 1].
        """
        if text in ("threshold", "bernoulli"):
            return cls(text)
        if match := _TOPK.fullmatch(text):
            try:
                return cls("topk", float(match[1]))
            except ValueError:
                pass
        raise _unknown(text)

    def __str__(self) -> str:
        """Returns the one spelling that `parse` reads back to the same value."""
        return f"topk:{self.fraction!r}" if self.kind == "topk" else self.kind

    @property
    def draws(self) -> bool:
        """Whether the mask is drawn in training."""
        return self.kind == "bernoulli"

    @torch.no_grad()
    def mask(self, scores: Tensor, *, training: bool, uniform: Tensor | None = None) -> Tensor:
        """Returns which weights are kept.

        Args:
            scores: float32, one layer, any shape and strides.
            training: Whether `bernoulli` draws.
            uniform: What it draws, float32 from 0 to below 1, shaped as `scores`; if not given, it is drawn from the
                default generator of the scores' device.

        Returns:
            bool, shaped as `scores`.
        """
        if self.kind == "topk":
            return _largest(scores.abs().reshape(-1), self.fraction).view(scores.shape)
        if self.draws and training:
            return (torch.rand_like(scores) if uniform is None else uniform) < scores.sigmoid()
        return scores > 0  # sigmoid(s) > 1/2, without its rounding

    def weights(
        self, scores: Tensor, frozen: Tensor, *, training: bool, uniform: Tensor | None = None
    ) -> Tensor:
        """Returns the frozen weight where the mask is 1, else +0.0; differentiable in the scores.

        Args:
            scores: float32, one layer, any shape and strides.
            frozen: float32, the same shape, or its last dimensions.
            training: See `mask`.
            uniform: See `mask`.

        Returns:
            float32, shaped as `scores`.
        """
        mask = self.mask(scores, training=training, uniform=uniform)
        weights: Tensor = _StraightThrough.apply(scores, frozen, mask, self.kind)  # type: ignore[no-untyped-call]
        return weights


PAPER_RULE = ScoreRule("topk", 0.5)
"""Edge-popup with half of each layer kept, as in the paper's code."""


class _StraightThrough(torch.autograd.Function):
    """Masks the weights; on the way back takes the mask for |s| (topk), s (threshold) or the sigmoid (bernoulli)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, frozen: Tensor, mask: Tensor, kind: str) -> Tensor:
        # As pemn.rebuild does: a product would leave -0.0 in the place of negative weights, and where() is 15 times
        # as slow on a CPU.
        return (frozen.view(torch.int32) & -mask.to(torch.int32)).view(torch.float32)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, str], output: Tensor) -> None:
        scores, frozen, _, ctx.kind = inputs
        ctx.save_for_backward(scores, frozen)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        scores, frozen = ctx.saved_tensors
        if ctx.kind == "threshold":
            return grad * frozen, None, None, None
        if ctx.kind == "topk":
            return grad * frozen * scores.sign(), None, None, None
        return torch.ops.aten.sigmoid_backward(grad * frozen, scores.sigmoid()), None, None, None


def _largest(magnitude: Tensor, fraction: float) -> Tensor:
    """Returns which values belong to the largest, exactly `n - int((1 - fraction) * n)`; of equal ones the first.

    Args:
        magnitude: float32 [n].
        fraction: Share that belongs to them, 0 < fraction <= 1.

    Returns:
        bool [n].
    """
    num_dropped = int((1 - fraction) * magnitude.numel())  # in float64, as the published code has it
    if num_dropped == 0:
        return torch.ones_like(magnitude, dtype=torch.bool)
    largest_dropped: Tensor = _kth_smallest(magnitude, num_dropped)
    above = magnitude > largest_dropped
    room = magnitude.numel() - num_dropped - above.count_nonzero()
    equal = magnitude == largest_dropped
    return above | (equal & (equal.cumsum(0) <= room))


@torch.library.custom_op("pemn::kth_smallest", mutates_args=())
def _kth_smallest(values: Tensor, k: int) -> Tensor:
    """Returns the k-th smallest of float32 [..., n], k from 1, as float32 [...].

    An operator of its own, so that torch.compile and vmap need not look into it. `Tensor.kthvalue` takes 17 times as
    long on a CPU with AVX-512 (786,432 values), as much on CUDA by pytorch/pytorch#75599, and is refused there where
    torch is to be deterministic.
    """
    if values.device.type == "cpu":
        return torch.from_numpy(np.partition(values.numpy(), k - 1)).select(-1, k - 1).clone()
    return values.sort().values.select(-1, k - 1).clone()


@_kth_smallest.register_fake
def _(values: Tensor, k: int) -> Tensor:
    return values.new_empty(values.shape[:-1])


@_kth_smallest.register_vmap
def _(info: Any, in_dims: tuple[int, None], values: Tensor, k: int) -> tuple[Tensor, int]:
    found: Tensor = _kth_smallest(values.movedim(in_dims[0], 0), k)
    return found, 0


def _unknown(got: object) -> ConfigError:
    wanted = "topk:K with 0 < K <= 1 (the share that is kept), threshold or bernoulli"
    return ConfigError("unknown score rule", got=repr(str(got)), wanted=wanted)
