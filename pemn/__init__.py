"""Parameter-efficient masking networks: a neural network as a seed and a binary mask.

What a library user needs first, without knowing where it is kept (torch is imported when it is used):

    describe      module -> its description: which tensors are masked, from which seed and prototype
    mask_model    masks any torch module in place; its scores train by any optimizer
    mask_of       the packed mask of a masked module
    package       trained module -> artifact
    save          writes it as a .pemn file
    Artifact      what the file holds; its `tensors` are the rebuilt weights
    PAPER         how PEMN draws the frozen weights; `WeightInit()` is for networks without norms
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pemn.artifact import Artifact as Artifact
    from pemn.distribution import Distribution as Distribution
    from pemn.packaging import package as package
    from pemn.packaging import save as save
    from pemn.prototype import Strategy as Strategy
    from pemn.spec import InputContract as InputContract
    from pemn.training.masked import mask_model as mask_model
    from pemn.training.masked import mask_of as mask_of
    from pemn.training.models import PAPER as PAPER
    from pemn.training.models import WeightInit as WeightInit
    from pemn.training.models import describe as describe
    from pemn.training.rules import Rules as Rules
    from pemn.training.scores import ScoreRule as ScoreRule

_PLACES = {
    "Artifact": "pemn.artifact",
    "Distribution": "pemn.distribution",
    "InputContract": "pemn.spec",
    "PAPER": "pemn.training.models",
    "Rules": "pemn.training.rules",
    "ScoreRule": "pemn.training.scores",
    "Strategy": "pemn.prototype",
    "WeightInit": "pemn.training.models",
    "describe": "pemn.training.models",
    "mask_model": "pemn.training.masked",
    "mask_of": "pemn.training.masked",
    "package": "pemn.packaging",
    "save": "pemn.packaging",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'pemn' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
