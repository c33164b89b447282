"""What an augmentation is, and several after each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Augmentation(Protocol):
    """A random change of a batch: a value that can be compared and printed, without state of its own."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns another batch; the one given is not changed.

        How many numbers are drawn depends on the batch's shape alone.

        Args:
            images: uint8 0 .. 255 or float 0 .. 1, [B, C, H, W]; dtype and device are kept unless it says otherwise.
            generator: Where all randomness comes from; of the images' device.
        """
        ...


@dataclass(frozen=True)
class Composed:
    """Augmentations after each other; see `compose`."""

    steps: tuple[Augmentation, ...]

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the batch after every step."""
        for step in self.steps:
            images = step(images, generator)
        return images


def compose(*steps: Augmentation) -> Composed:
    """Returns the augmentation that takes the given steps in order."""
    return Composed(steps)
