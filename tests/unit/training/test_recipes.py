"""The paper's recipes, and the check of any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pemn.errors import ConfigError
from pemn.training.augment import preset
from pemn.training.recipes import PAPER, Recipe, paper_recipe


def test_convmixer_is_the_official_codes_command() -> None:
    recipe = paper_recipe("convmixer-6-256")
    assert recipe == Recipe("adamw", 0.05, "triangular", 0.005, 512, 100, "paper-convmixer", (0.9, 0.999))
    assert recipe.learning_rate_at(20) == pytest.approx(0.025)
    assert recipe.learning_rate_at(60) == pytest.approx(0.02625)


def test_vit_and_resnet_hold_what_the_supplement_says() -> None:
    vit, resnet = paper_recipe("vit-8-512"), paper_recipe("resnet-56")
    assert (vit.learning_rate, vit.batch_size, vit.epochs) == (1e-4, 256, 200)
    assert (resnet.weight_decay, resnet.momentum, resnet.optimizer) == (5e-4, 0.9, "sgd")
    assert vit.learning_rate_at(100) == pytest.approx(5e-5)
    assert resnet.learning_rate_at(120) == pytest.approx(0.01)


def test_a_network_that_the_paper_does_not_train() -> None:
    for name in ("mlp-64", "resnetx-20", "timm", ""):
        with pytest.raises(ConfigError, match="no recipe in the paper"):
            paper_recipe(name)


@pytest.mark.parametrize("family", PAPER)
def test_every_recipe_can_be_followed(family: str) -> None:
    """Its optimizer takes its numbers, its augmentation a batch, and its rate ends near 0."""
    recipe = PAPER[family]
    weight = torch.nn.Parameter(torch.zeros(1))
    rate, decay = recipe.learning_rate_at(recipe.epochs / 2), recipe.weight_decay
    match recipe.optimizer:
        case "adamw":
            torch.optim.AdamW([weight], lr=rate, weight_decay=decay, betas=recipe.betas)
        case "adam":
            torch.optim.Adam([weight], lr=rate, weight_decay=decay, betas=recipe.betas)
        case "sgd":
            torch.optim.SGD([weight], lr=rate, weight_decay=decay, momentum=recipe.momentum)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    augmentation = preset(recipe.augmentation, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert augmentation(images, torch.Generator()).dtype == torch.float32
    assert recipe.learning_rate_at(recipe.epochs) <= 0.011 * recipe.learning_rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer: got lion; wanted adamw, adam, sgd"),
        ({"schedule": "sawtooth"}, "schedule: got sawtooth; wanted triangular"),
        ({"augmentation": "heavy"}, "augmentation: got heavy; wanted paper-convmixer"),
        ({"learning_rate": 0.0}, "learning rate: got 0.0"),
        ({"learning_rate": float("nan")}, "learning rate: got nan"),
        ({"learning_rate": float("inf")}, "learning rate: got inf"),
        ({"weight_decay": -1e-9}, "weight decay"),
        ({"batch_size": 0}, "batch size: got 0; wanted 1 or more"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"momentum": -0.1}, "momentum"),
        ({"betas": (0.9, 1.0)}, "second beta: got 1.0"),
        ({"betas": (-0.1, 0.9)}, "first beta"),
    ],
)
def test_a_recipe_that_cannot_be_followed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PAPER["resnet"], **change)
