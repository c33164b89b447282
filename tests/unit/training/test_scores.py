"""Score rules: which weights they keep, and what gradient reaches the scores, against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from pemn.errors import ConfigError
from pemn.training.scores import ScoreRule

RULES = ["topk:0.5", "threshold", "bernoulli"]


def mask(rule: str, scores: Tensor, *, training: bool = True) -> list[bool]:
    found = ScoreRule.parse(rule).mask(scores, training=training)
    assert found.dtype == torch.bool
    assert found.shape == scores.shape
    kept: list[bool] = found.reshape(-1).tolist()
    return kept


def gradient(rule: str, scores: Tensor, frozen: Tensor, of_weights: Tensor) -> Tensor:
    """What reaches the scores if dL/dw is `of_weights`."""
    leaf = scores.clone().requires_grad_(True)
    weights = ScoreRule.parse(rule).weights(leaf, frozen, training=True)
    (found,) = torch.autograd.grad(weights, leaf, of_weights)
    return found


@pytest.mark.parametrize("text", ["topk:0.5", "topk:1.0", "topk:1e-05", "topk:0.3", "threshold", "bernoulli"])
def test_one_spelling(text: str) -> None:
    assert str(ScoreRule.parse(text)) == text


def test_other_spellings_mean_the_same_rule() -> None:
    assert ScoreRule.parse("topk:1e-1") == ScoreRule.parse("topk:.1") == ScoreRule("topk", 0.1)


@pytest.mark.parametrize(
    "text",
    ["", "topk", "topk:", "topk:0", "topk:1.5", "topk:-1", "topk:nan", "topk:..", "topk:0.5 ", "threshold:1"],
)
def test_no_such_rule(text: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown score rule.*the share that is kept"):
        ScoreRule.parse(text)


@pytest.mark.parametrize(
    ("kind", "fraction"), [("topk", math.nan), ("topk", 0.0), ("threshold", 0.5), ("x", 1.0)]
)
def test_no_such_rule_by_its_parts(kind: str, fraction: float) -> None:
    with pytest.raises(ConfigError, match="unknown score rule"):
        ScoreRule(kind, fraction)


def test_topk_keeps_the_largest_magnitudes() -> None:
    assert mask("topk:0.5", torch.tensor([0.1, -0.9, 0.3, -0.2])) == [False, True, True, False]


def test_topk_of_seven_keeps_four() -> None:
    """n - int((1 - K) * n) = 7 - int(3.5)."""
    kept = mask("topk:0.5", torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
    assert kept == [False, False, False, True, True, True, True]


def test_topk_computes_the_count_as_the_published_code_does() -> None:
    """(1 - 0.9) * 10 is 0.9999999999999998 in float64, so nothing is dropped; (1 - 0.7) * 10 is 3.0000000000000004."""
    scores = torch.arange(10.0)
    assert sum(mask("topk:0.9", scores)) == 10
    assert sum(mask("topk:0.7", scores)) == 7


def test_of_equal_magnitudes_the_first_are_kept() -> None:
    assert mask("topk:0.5", torch.tensor([1.0, -1.0, 1.0, -1.0])) == [True, True, False, False]
    assert mask("topk:0.5", torch.tensor([1.0, -2.0, 1.0, 0.0, 1.0, -1.0])) == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert mask("topk:0.5", torch.zeros(4)) == [True, True, False, False]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_topk_of_everything(size: int) -> None:
    assert mask("topk:1.0", torch.zeros(size)) == [True] * size


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=60), st.floats(1e-3, 1.0))
@example([0], 1e-3)
@example([1] * 60, 0.5)
def test_topk_is_the_beginning_of_a_stable_sort(values: list[int], fraction: float) -> None:
    scores = torch.tensor(values, dtype=torch.float32)
    num_kept = len(values) - int((1 - fraction) * len(values))
    first = np.argsort(-np.abs(values), kind="stable")[:num_kept]
    found = ScoreRule("topk", fraction).mask(scores, training=True)
    assert found.nonzero()[:, 0].tolist() == sorted(first.tolist())


@pytest.mark.parametrize("rule", RULES)
def test_strides_do_not_matter(rule: str) -> None:
    """The order of the weights is the logical one, not that of the memory."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(-3, 4, (4, 6, 3, 3), generator=generator).float()
    frozen = torch.randn(scores.shape, generator=generator)
    strided = scores.to(memory_format=torch.channels_last)
    assert not strided.is_contiguous()
    assert mask(rule, strided, training=False) == mask(rule, scores, training=False)
    chosen = ScoreRule.parse(rule)
    wanted = chosen.weights(scores, frozen, training=False)
    assert torch.equal(chosen.weights(strided, frozen, training=False), wanted)
    assert torch.equal(
        chosen.weights(strided.permute(1, 0, 3, 2).permute(1, 0, 3, 2), frozen, training=False), wanted
    )
    if rule != "bernoulli":
        of_weights = torch.randn(scores.shape, generator=generator)
        assert torch.equal(
            gradient(rule, strided, frozen, of_weights), gradient(rule, scores, frozen, of_weights)
        )


def test_threshold_keeps_probabilities_above_one_half() -> None:
    tiny = 1e-30  # its sigmoid is 1/2 in float32
    assert mask("threshold", torch.tensor([0.0, -0.0, tiny, -tiny, 5.0])) == [False, False, True, False, True]


def test_bernoulli_draws_with_the_probability_of_the_score() -> None:
    torch.manual_seed(3)
    num_draws = 20_000
    p = torch.tensor([0.02, 0.3, 0.5, 0.9])
    scores = torch.logit(p).expand(num_draws, 4)
    drawn = ScoreRule("bernoulli").mask(scores, training=True).float().mean(0)
    assert ((drawn - p).abs() < 4 * (p * (1 - p) / num_draws).sqrt()).all()
    certain = torch.tensor([100.0, -100.0]).expand(num_draws, 2)
    assert ScoreRule("bernoulli").mask(certain, training=True).all(0).tolist() == [True, False]
    assert ScoreRule("bernoulli").mask(certain, training=True).any(0).tolist() == [True, False]


def test_bernoulli_goes_on_from_the_generators_state() -> None:
    scores = torch.zeros(200)
    state = torch.get_rng_state()
    first = mask("bernoulli", scores)
    second = mask("bernoulli", scores)
    assert first != second
    torch.set_rng_state(state)
    assert mask("bernoulli", scores) == first


def test_bernoulli_is_the_threshold_in_evaluation() -> None:
    scores = torch.linspace(-1, 1, 41)
    state = torch.get_rng_state()
    assert mask("bernoulli", scores, training=False) == mask("threshold", scores)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rule", RULES)
def test_masked_weights_are_plus_zero_and_kept_ones_keep_their_bits(rule: str) -> None:
    torch.manual_seed(2)
    frozen = torch.randn(1000) * torch.logspace(-40, 30, 1000)  # subnormal numbers among them
    scores = torch.randn(1000)
    chosen = ScoreRule.parse(rule)
    weights = chosen.weights(scores, frozen, training=False)
    kept = chosen.mask(scores, training=False)
    assert 0 < int(kept.sum()) < 1000
    assert torch.equal(weights.view(torch.int32)[kept], frozen.view(torch.int32)[kept])
    assert (weights.view(torch.int32)[~kept] == 0).all()


def test_gradient_of_topk() -> None:
    """dL/ds = dL/dw * w * sign(s), kept or dropped:

    s      0.5    -2.0     0.1    -0.3     0
    kept   yes    yes      no     yes      no       5 - int(2.5) = 3
    w      2      -3       5      -7       11
    dL/dw  10     10       10     0.5      1
    dL/ds  20     30       50     3.5      0
    """
    scores = torch.tensor([0.5, -2.0, 0.1, -0.3, 0.0])
    frozen = torch.tensor([2.0, -3.0, 5.0, -7.0, 11.0])
    of_weights = torch.tensor([10.0, 10.0, 10.0, 0.5, 1.0])
    weights = ScoreRule.parse("topk:0.5").weights(scores, frozen, training=True)
    assert weights.tolist() == [2.0, -3.0, 0.0, -7.0, 0.0]
    assert gradient("topk:0.5", scores, frozen, of_weights).tolist() == [20.0, 30.0, 50.0, 3.5, 0.0]


def test_gradient_of_threshold() -> None:
    """dL/ds = dL/dw * w, kept or dropped, however large the score is."""
    scores, frozen = torch.tensor([0.5, -2.0, 9.0, -0.1]), torch.tensor([2.0, -3.0, 5.0, -7.0])
    found = gradient("threshold", scores, frozen, torch.tensor([10.0, 10.0, 1.0, 0.5]))
    assert found.tolist() == [20.0, -30.0, 5.0, -3.5]


def test_gradient_through_the_sigmoid() -> None:
    """dL/ds = dL/dw * w * p * (1 - p), kept or dropped:

    s      ln 3        -ln 3       0        ln 9
    p      3/4         1/4         1/2      9/10
    p(1-p) 3/16        3/16        1/4      9/100
    w      2           -16         4        -10
    dL/dw  8           1           -1       5
    dL/ds  3           -3          -1       -4.5
    """
    scores = torch.tensor([math.log(3), -math.log(3), 0.0, math.log(9)])
    frozen = torch.tensor([2.0, -16.0, 4.0, -10.0])
    found = gradient("bernoulli", scores, frozen, torch.tensor([8.0, 1.0, -1.0, 5.0]))
    torch.testing.assert_close(found, torch.tensor([3.0, -3.0, -1.0, -4.5]))


@pytest.mark.parametrize("rule", RULES)
def test_the_frozen_weights_get_no_gradient(rule: str) -> None:
    frozen = torch.ones(4, requires_grad=True)
    scores = torch.ones(4, requires_grad=True)
    ScoreRule.parse(rule).weights(scores, frozen, training=True).sum().backward()  # type: ignore[no-untyped-call]
    assert frozen.grad is None
    assert scores.grad is not None


@pytest.mark.parametrize("rule", ["topk:0.3", "topk:1.0", "threshold"])
@pytest.mark.parametrize("in_dim", [0, 1])
def test_vmap_over_scores_is_a_loop(rule: str, in_dim: int) -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randint(-3, 4, (5, 12), generator=generator).float()
    frozen, factor = torch.randn(12, generator=generator), torch.randn(12, generator=generator)
    chosen = ScoreRule.parse(rule)

    def loss(one: Tensor) -> Tensor:
        return (chosen.weights(one, frozen, training=True) * factor).sum()

    batched = scores if in_dim == 0 else scores.T
    assert torch.equal(torch.vmap(loss, in_dims=in_dim)(batched), torch.stack([loss(one) for one in scores]))
    gradients = torch.vmap(torch.func.grad(loss), in_dims=in_dim)(batched)
    assert torch.equal(gradients, torch.stack([gradient(rule, one, frozen, factor) for one in scores]))


@pytest.mark.parametrize("in_dim", [0, 1])
def test_vmap_of_the_operator(in_dim: int) -> None:
    values = torch.tensor([[3.0, 1.0, 2.0], [7.0, 9.0, 8.0]])
    batched = values if in_dim == 0 else values.T
    found = torch.vmap(torch.ops.pemn.kth_smallest, in_dims=(in_dim, None))(batched, 2)
    assert found.tolist() == [2.0, 8.0]


def test_vmap_draws_for_each() -> None:
    torch.manual_seed(5)
    chosen, frozen = ScoreRule("bernoulli"), torch.ones(100)
    drawn = torch.vmap(lambda one: chosen.weights(one, frozen, training=True), randomness="different")(
        torch.zeros(2, 100)
    )
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("rule", ["topk:0.3", "threshold"])
def test_the_same_mask_on_cuda(rule: str) -> None:
    scores = torch.randint(-9, 9, (1000, 1001), generator=torch.Generator().manual_seed(6)).float()
    torch.use_deterministic_algorithms(True)
    try:
        assert mask(rule, scores.cuda()) == mask(rule, scores)
    finally:
        torch.use_deterministic_algorithms(False)
