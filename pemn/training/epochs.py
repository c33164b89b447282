"""Central training by a recipe, an epoch at a time; between epochs it can stop and go on bit for bit.

Every draw of an epoch (the order of the images, the augmentation, dropout, Bernoulli masks) follows from the seed and
the epoch's number, so what has to be kept is the module, the optimizer and how many epochs are done.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pemn.errors import ConfigError
from pemn.generator import Purpose, child, permutation
from pemn.training.augment import preset
from pemn.training.checkpoint import load_optimizer_state, optimizer_state
from pemn.training.recipes import Recipe

_SEED_BITS = 63  # what torch's generators take


class Images:
    """A split on the device that trains.

    Args:
        pixels: uint8 [N, C, H, W].
        labels: int64 [N].
        mean: Of each channel, in units of the full range.
        std: The same, > 0.
    """

    def __init__(
        self, pixels: Tensor, labels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        self.pixels, self.labels = pixels, labels
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        """Returns N."""
        return len(self.labels)


class Training:
    """A module in training.

    Args:
        module: On its device; its parameters that require gradients are trained.
        recipe: How.
        images: The training split, on the same device.
        seed: 64-bit seed of every draw.
        half: Whether the forward pass runs in half precision (torch.autocast: bfloat16 on a CPU, float16 with a
            scaled loss on CUDA).

    Raises:
        ConfigError: If a batch would have one image, and the module normalises over the batch.
    """

    def __init__(self, module: nn.Module, recipe: Recipe, images: Images, seed: int, *, half: bool) -> None:
        has_batch_norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
        if has_batch_norm and 1 in (recipe.batch_size, len(images) % recipe.batch_size):
            got = f"{len(images)} images in batches of {recipe.batch_size}, so a last one of 1"
            raise ConfigError("batch norm has nothing to average", got=got, where="--batch-size")
        self.module, self.recipe, self.num_epochs_done = module, recipe, 0
        self._images, self._seed, self._half = images, seed, half
        self._device = images.pixels.device
        self._optimizer = _optimizer(recipe, [p for p in module.parameters() if p.requires_grad])
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=half and self._device.type == "cuda")
        self._augment = preset(recipe.augmentation, images.mean, images.std)
        self._loss = nn.CrossEntropyLoss()

    @property
    def num_steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self._images) // self.recipe.batch_size)

    def run_epoch(self, on_step: Callable[[int], None]) -> float:
        """Trains for an epoch.

        Args:
            on_step: Called with the number of steps done after each.

        Returns:
            The mean loss of its images.

        Raises:
            ConfigError: If the loss or a parameter is not finite any more.
        """
        key = child(self._seed, Purpose.BATCHES, self.num_epochs_done)
        order = torch.from_numpy(permutation(key, len(self._images))).to(self._device)
        draw = torch.Generator(self._device).manual_seed(child(key, 0) >> 64 - _SEED_BITS)
        torch.manual_seed(child(key, 1) >> 64 - _SEED_BITS)
        self.module.train()
        losses = []
        for step, batch in enumerate(torch.split(order, self.recipe.batch_size)):
            self._set_rate(self.num_epochs_done + (step + 1) / self.num_steps)
            losses.append(self._step(self._augment(self._images.pixels[batch], draw), batch))
            on_step(step + 1)
        loss = float(torch.stack(losses).sum()) / len(self._images)
        is_finite = all(bool(p.isfinite().all()) for p in self.module.parameters())
        if not is_finite or not loss < float("inf"):
            raise ConfigError(
                "training diverged",
                got=f"loss {loss}" if is_finite else "parameters that are not finite",
                wanted="a lower learning rate",
                where="--learning-rate",
            )
        self.num_epochs_done += 1
        return loss

    def state(self) -> dict[str, Tensor]:
        """Returns all tensors that training goes on from; they share memory with the module and the optimizer."""
        module = {f"module/{name}": tensor for name, tensor in self.module.state_dict().items()}
        optimizer = optimizer_state(self._optimizer)
        scaler = {f"scaler/{name}": torch.tensor(v) for name, v in self._scaler.state_dict().items()}
        return module | {f"optimizer/{name}": tensor for name, tensor in optimizer.items()} | scaler

    def load_state(self, state: dict[str, Tensor], num_epochs_done: int) -> None:
        """Goes on from what `state` returned, in a module, by a recipe and with images and seed that are the same."""
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "optimizer": {}, "scaler": {}}
        for path, tensor in state.items():
            kind, name = path.split("/", 1)
            parts[kind][name] = tensor
        self.module.load_state_dict(parts["module"])
        load_optimizer_state(self._optimizer, parts["optimizer"])
        self._scaler.load_state_dict({name: tensor.item() for name, tensor in parts["scaler"].items()})
        self.num_epochs_done = num_epochs_done

    def _set_rate(self, epochs_done: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(epochs_done)

    def _step(self, inputs: Tensor, batch: Tensor) -> Tensor:
        """Takes a step and returns the summed loss of the batch, still on the device."""
        # Each mask is made once, and drawn once, however often a layer reads its weight (attention does three times).
        with self._autocast(), parametrize.cached():
            loss: Tensor = self._loss(self.module(inputs), self._images.labels[batch])
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach() * len(batch)

    def _autocast(self) -> Any:
        return torch.autocast(self._device.type) if self._half else nullcontext()


@torch.no_grad()
def evaluate(module: nn.Module, images: Images, batch_size: int = 1000) -> float:
    """Returns the share of images that a module classifies rightly, 0 .. 1."""
    module.eval()
    draw = torch.Generator(images.pixels.device)
    normalise = preset("none", images.mean, images.std)
    right = torch.zeros((), dtype=torch.int64, device=images.pixels.device)
    with parametrize.cached():
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            found = module(normalise(images.pixels[batch], draw)).argmax(1)
            right += (found == images.labels[batch]).sum()
    return int(right) / len(images)


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay)
    adam = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return adam(parameters, lr=rate, betas=recipe.betas, weight_decay=decay)
