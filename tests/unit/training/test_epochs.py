"""Central training: what of a recipe reaches the optimizer and the module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pemn.errors import ConfigError
from pemn.prototype import Strategy
from pemn.spec import InputContract
from pemn.training.epochs import Images, Training, evaluate
from pemn.training.masked import mask_model
from pemn.training.models import describe
from pemn.training.recipes import PAPER, Recipe
from pemn.training.scores import ScoreRule

RECIPE = Recipe(
    optimizer="sgd",
    learning_rate=0.1,
    schedule="triangular",
    weight_decay=0.01,
    batch_size=4,
    epochs=3,
    augmentation="none",
    momentum=0.5,
)


def images(count: int = 10) -> Images:
    pixels = torch.randint(
        0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    return Images(pixels, torch.arange(count) % 2, (0.5,) * 3, (0.25,) * 3)


class Watched(nn.Module):
    """Keeps what it was fed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 2)
        self.inputs: list[Tensor] = []
        self.in_half: list[bool] = []

    def forward(self, batch: Tensor) -> Tensor:
        self.inputs.append(batch.detach().clone())
        self.in_half.append(torch.is_autocast_enabled("cpu"))
        logits: Tensor = self.head(batch.flatten(1))
        return logits


def training(recipe: Recipe = RECIPE, module: nn.Module | None = None, *, half: bool = False) -> Training:
    torch.manual_seed(0)
    return Training(module or Watched(), recipe, images(), 3, half=half)


@pytest.mark.parametrize("name", [*PAPER, "own"])
def test_a_recipes_numbers_reach_the_optimizer(name: str) -> None:
    recipe = {**PAPER, "own": RECIPE}[name]
    optimizer = training(recipe)._optimizer
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    assert type(optimizer) is kinds[recipe.optimizer]
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == recipe.weight_decay
    if recipe.optimizer == "sgd":
        assert group["momentum"] == recipe.momentum
    else:
        assert group["betas"] == recipe.betas


def test_every_step_has_the_schedules_rate() -> None:
    run, rates = training(), []
    step = run._optimizer.step

    def noted(*arguments: Any, **options: Any) -> Any:
        rates.append(run._optimizer.param_groups[0]["lr"])
        return step(*arguments, **options)

    run._optimizer.step = noted  # type: ignore[method-assign]
    for _ in range(3):
        run.run_epoch(lambda _: None)
    assert rates == pytest.approx([RECIPE.learning_rate_at((step + 1) / 3) for step in range(9)])
    assert len(set(rates)) > 5


def test_an_epoch_is_every_image_once_and_its_loss_the_mean_of_them() -> None:
    module = Watched()
    run = training(replace(RECIPE, learning_rate=1e-30, weight_decay=0.0), module)
    steps: list[int] = []
    loss = run.run_epoch(steps.append)
    assert steps == [1, 2, 3]
    assert [len(batch) for batch in module.inputs] == [4, 4, 2]
    fed, all_ = torch.cat(module.inputs), images()
    wanted = (all_.pixels / 255 - 0.5) / 0.25
    order = [int((wanted - image).abs().flatten(1).sum(1).argmin()) for image in fed]
    assert sorted(order) == list(range(10))
    assert torch.allclose(fed, wanted[order])
    with torch.no_grad():
        logits = module(wanted)
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, all_.labels).item(), rel=1e-5)


def test_orders_differ_by_epoch_and_seed_and_by_nothing_else() -> None:
    def order(seed: int, epochs: int) -> bytes:
        module = Watched()
        run = Training(module, RECIPE, images(), seed, half=False)
        for _ in range(epochs):
            module.inputs.clear()
            run.run_epoch(lambda _: None)
        return torch.cat(module.inputs).numpy().tobytes()

    assert order(1, 1) == order(1, 1)
    assert len({order(1, 1), order(1, 2), order(2, 1)}) == 3


def test_the_augmentation_is_that_of_the_recipe() -> None:
    fed = {}
    for augmentation in ("none", "light"):
        module = Watched()
        training(replace(RECIPE, augmentation=augmentation), module).run_epoch(lambda _: None)
        fed[augmentation] = torch.cat(module.inputs)
    assert fed["none"].shape == fed["light"].shape
    assert not torch.equal(fed["none"], fed["light"])


@pytest.mark.parametrize("half", [True, False])
def test_half_precision_is_asked_for(half: bool) -> None:
    module = Watched()
    training(RECIPE, module, half=half).run_epoch(lambda _: None)
    assert module.in_half == [half] * 3


def test_what_does_not_require_gradients_stays() -> None:
    module = Watched()
    module.head.bias.requires_grad_(False)
    before = module.head.weight.detach().clone(), module.head.bias.detach().clone()
    training(RECIPE, module).run_epoch(lambda _: None)
    assert not torch.equal(module.head.weight, before[0])
    assert torch.equal(module.head.bias, before[1])


def test_a_diverged_run_is_told_and_not_counted() -> None:
    run = training(replace(RECIPE, learning_rate=1e30))

    def train() -> None:
        while run.num_epochs_done < 3:
            run.run_epoch(lambda _: None)

    with pytest.raises(ConfigError, match=r"training diverged: got .*; wanted a lower learning rate"):
        train()


def test_parameters_that_are_not_finite_are_told_though_the_loss_is() -> None:
    """As scores of which the largest are kept: those that are no numbers are dropped."""

    class Hidden(Watched):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Parameter(torch.zeros(3))

        def forward(self, batch: Tensor) -> Tensor:
            return super().forward(batch) + 0 * self.scores.detach().nan_to_num().sum()

    module = Hidden()
    run = training(RECIPE, module)
    with torch.no_grad():
        module.scores[1] = float("nan")
    with pytest.raises(ConfigError, match="parameters that are not finite"):
        run.run_epoch(lambda _: None)


def test_a_last_batch_of_one_is_refused_where_batches_are_normalised() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(
        ConfigError, match=r"batch norm .*10 images in batches of 3, so a last one of 1; in --batch-size"
    ):
        training(replace(RECIPE, batch_size=3), module)
    with pytest.raises(ConfigError, match="batch norm has nothing to average: got 10 images in batches of 1"):
        training(replace(RECIPE, batch_size=1), module)
    training(replace(RECIPE, batch_size=3)).run_epoch(lambda _: None)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_accuracy_is_the_share_that_is_right(batch_size: int) -> None:
    class Constant(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return torch.tensor([0.0, 1.0]).expand(len(batch), 2)

    shown = images(7)
    assert evaluate(Constant(), shown, batch_size) == 3 / 7


def test_accuracy_is_that_of_evaluation() -> None:
    class TwoFaced(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            right = torch.arange(10) % 2
            return nn.functional.one_hot(1 - right if self.training else right, 2).float()

    assert evaluate(TwoFaced().train(), images(), 10) == 1.0


def test_every_epoch_augments_in_its_own_way() -> None:
    module = Watched()
    one = Images(images(1).pixels, torch.zeros(1, dtype=torch.int64), (0.5,) * 3, (0.25,) * 3)
    loop = Training(module, replace(RECIPE, batch_size=1, augmentation="light", epochs=6), one, 3, half=False)
    for _ in range(6):
        loop.run_epoch(lambda _: None)
    assert len({batch.numpy().tobytes() for batch in module.inputs}) > 2


def test_a_mask_is_drawn_once_a_pass_however_often_it_is_read() -> None:
    class Twice(Watched):
        def forward(self, batch: Tensor) -> Tensor:
            self.seen = (self.head.weight, self.head.weight)
            return super().forward(batch)

    module = Twice()
    contract = InputContract((3, 8, 8), (0.5,) * 3, (0.25,) * 3, ("a", "b"))
    mask_model(module, describe(module, "twice", contract, 1, Strategy("mp")), ScoreRule("bernoulli"))
    training(module=module).run_epoch(lambda _: None)
    assert torch.equal(*module.seen)
