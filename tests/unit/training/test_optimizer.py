"""Adam for a few steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pemn.prototype import Strategy
from pemn.spec import ModelSpec
from pemn.training.models import model_spec
from pemn.training.optimizer import ScoreAdam
from tests.networks import DIGITS

RATE = 0.3


def model(terms: int = 1) -> ModelSpec:
    spec = model_spec("mlp-7-5", DIGITS, 1, Strategy("full"))
    return replace(spec, layers=(*spec.layers[:-1], replace(spec.layers[-1], terms=terms)))


def moved(spec: ModelSpec, num_steps: int, gradients: list[Tensor]) -> Tensor:
    """How far scores are from where they began, after a step with each of these gradients."""
    row = torch.zeros(spec.num_bits)
    optimizer = ScoreAdam([row], [num_steps], spec, RATE)
    for gradient in gradients:
        row.grad = gradient.clone()
        optimizer.step()
    return row


def noise(spec: ModelSpec, seed: int = 0) -> Tensor:
    return torch.randn(spec.num_bits, generator=torch.Generator().manual_seed(seed))


def test_a_gradient_that_is_small_in_its_layer_moves_little_at_first() -> None:
    spec = model()
    gradient = noise(spec)
    gradient[3] = 1e-4
    gradient[spec.sizes[0] :] *= 1e-4  # but how large a whole layer's are says nothing
    step = moved(spec, 100, [gradient]).abs()
    assert step[3] < 1e-3 * step[: spec.sizes[0]].mean()
    first, rest = step[: spec.sizes[0]].mean(), step[spec.sizes[0] :].mean()
    assert first == pytest.approx(float(rest), rel=0.2)
    # A fresh Adam would move it as far as any other.
    fresh = torch.zeros(spec.num_bits)
    fresh.grad = gradient
    torch.optim.Adam([fresh], lr=RATE).step()
    assert torch.allclose(fresh.abs(), torch.full_like(fresh, RATE), rtol=1e-2)


def test_the_steps_grow_to_the_learning_rate() -> None:
    spec = model()
    gradient = noise(spec).sign()
    row = torch.zeros(spec.num_bits)
    optimizer = ScoreAdam([row], [50], spec, RATE)
    lengths = []
    for _ in range(50):
        before = row.clone()
        row.grad = gradient.clone()
        optimizer.step()
        lengths.append(float((row - before).abs().mean()))
    assert lengths == sorted(lengths)
    assert lengths[0] < 0.2 * RATE
    assert lengths[-1] == pytest.approx(RATE, rel=0.02)


def test_a_round_of_few_steps_is_not_spent_on_growing() -> None:
    spec = model()
    gradient = noise(spec).sign()
    assert float(moved(spec, 2, [gradient] * 2).abs().mean()) > 0.6 * 2 * RATE


def test_scores_of_sums_move_by_less() -> None:
    plain, sums = model(), model(terms=8)
    body = plain.num_bits - plain.bit_sizes[-1]
    gradient, head = noise(plain), noise(plain)[body:]
    alone = moved(plain, 30, [gradient] * 4)
    many = moved(sums, 30, [torch.cat([gradient[:body], head.repeat(8)])] * 4)
    assert torch.allclose(many[:body], alone[:body], rtol=1e-5)
    assert torch.allclose(many[body:], alone[body:].repeat(8) / 2, rtol=1e-5)


def test_clients_do_not_see_each_other() -> None:
    """Rows train as alone, also with other numbers of steps, and stay where they are without a gradient."""
    spec = model(terms=2)
    rows = [torch.zeros(spec.num_bits) for _ in range(3)]
    optimizer = ScoreAdam(rows, [40, 20, 20], spec, RATE)
    for step in range(6):
        for index, row in enumerate(rows):
            row.grad = None if (index == 1 and step > 3) or index == 2 else noise(spec, 10 * index + step)
        optimizer.step()
    assert torch.equal(rows[0], moved(spec, 40, [noise(spec, step) for step in range(6)]))
    assert torch.equal(rows[1], moved(spec, 20, [noise(spec, 10 + step) for step in range(4)]))
    assert not rows[2].any()
