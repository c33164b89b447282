"""How many images of a data set a network's flat weights classify rightly."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from pemn.spec import ModelSpec
from pemn.training.local import unflatten


@torch.no_grad()
def accuracy(
    module: nn.Module,
    model: ModelSpec,
    weights: NDArray[np.float32],
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    batch_size: int = 1000,
) -> float:
    """Returns the share of images that a model classifies rightly, 0 .. 1.

    Args:
        module: What `pemn.training.networks.build` made for the network.
        model: The network.
        weights: float32 [n], as `pemn.rebuild.rebuild` returns them.
        images: float32 [N, C, H, W], normalised.
        labels: int64 [N].
        batch_size: Images a forward pass.
    """
    named = unflatten(torch.tensor(weights), model)
    right = 0
    for begin in range(0, len(labels), batch_size):
        batch = torch.from_numpy(images[begin : begin + batch_size])
        predicted = functional_call(module, named, (batch,)).argmax(1).numpy()
        right += int(np.count_nonzero(predicted == labels[begin : begin + batch_size]))
    return right / len(labels)
