"""Tensors and facts in one file that holds no code: safetensors, with the facts as JSON in its metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pemn.errors import FileError

_FACTS = "pemn"


def to_bytes(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    """Returns a checkpoint.

    Args:
        tensors: By name.
        facts: What JSON can hold; floats come back as they are.
    """
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(whole, metadata={_FACTS: json.dumps(facts)})


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a checkpoint.

    Raises:
        FileError: If it is missing, unreadable or none.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (no dictionary)
    except FileNotFoundError as error:
        wanted = "a run of one whole epoch, or no --resume"
        raise FileError("no checkpoint to go on from", wanted=wanted, where=path) from error
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise FileError(f"damaged checkpoint, {type(error).__name__}: {error!s:.200}", where=path) from error


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns the tensors of an optimizer's state by `INDEX/KEY`; the options of its groups are not in it."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}/{key}": value
        for index, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_state` returned, into an optimizer of the same parameters and options."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
