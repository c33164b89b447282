"""A run as it is after a round, in one file: it goes on from there as if it had not been stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pemn.config import check_unchanged
from pemn.errors import FileError, RemoteError
from pemn.files import write_atomic
from pemn.methods import Memory, Server, decode_state, encode_state
from pemn.training import checkpoint as tensors_and_facts
from pemn.wire.spec import Spec
from pemn_server.outcome import Outcome
from pemn_server.settings import RunOptions

CHECKPOINT_NAME = "checkpoint.safetensors"
_FREE = {
    *("run_dir", "resume", "data_dir", "threads", "engine", "workers"),
    *("listen", "credentials", "insecure", "insecure_network", "metrics", "log_format"),
    *("wait_timeout_s", "round_timeout_s"),
}
"""Options that decide nothing of the result."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from.

    Attributes:
        spec: The run.
        outcome: What it has come to.
        num_entries: Lines of the ledger, where the clients are a part of what is kept.
        memories: What those clients keep of their own, in some methods, by slot.
    """

    spec: Spec
    outcome: Outcome
    num_entries: int
    memories: Mapping[int, Memory]


def identity(settings: RunOptions) -> dict[str, Any]:
    """Returns what decides the result, as JSON has it."""
    return settings.model_dump(mode="json", exclude=_FREE)


def save(path: Path, settings: RunOptions, server: Server, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in the place of the last one, whole or not at all.

    Raises:
        FileError: If it cannot be written.
    """
    outcome = checkpoint.outcome
    arrays = {
        "spec": _octets(checkpoint.spec.to_bytes()),
        "state": _octets(encode_state(server, outcome.state)),
    }
    rounds = {}
    for slot, memory in checkpoint.memories.items():
        rounds[slot] = memory.round
        arrays[f"later/{slot}"] = torch.from_numpy(memory.later)
        if memory.earlier is not None:
            arrays[f"earlier/{slot}"] = torch.from_numpy(memory.earlier)
    facts = {
        "settings": identity(settings),
        "accuracies": outcome.accuracies,
        "num_votes": outcome.num_votes,
        "abandoned_rounds": outcome.abandoned_rounds,
        "images": list(outcome.images.items()),
        "seconds": outcome.seconds,
        "num_entries": checkpoint.num_entries,
        "memories": list(rounds.items()),
    }
    write_atomic(path, tensors_and_facts.to_bytes(arrays, facts))


def load(path: Path, settings: RunOptions) -> Checkpoint:
    """Reads the checkpoint of a run.

    Raises:
        FileError: If there is none, or it is damaged.
        ConfigError: If the run was begun with other options.
    """
    arrays, facts = tensors_and_facts.load(path)
    try:
        check_unchanged(facts["settings"], identity(settings))
        spec = Spec.from_bytes(arrays["spec"].numpy().tobytes())
        outcome = Outcome(
            state=decode_state(Server.of(spec), arrays["state"].numpy().tobytes()),
            accuracies=facts["accuracies"],
            num_votes=facts["num_votes"],
            abandoned_rounds=facts["abandoned_rounds"],
            images=dict(facts["images"]),
            seconds=facts["seconds"],
        )
        memories = {}
        for slot, round_ in facts["memories"]:
            earlier = arrays.get(f"earlier/{slot}")
            kept = None if earlier is None else earlier.numpy()
            memories[slot] = Memory(round_, kept, arrays[f"later/{slot}"].numpy())
        return Checkpoint(spec, outcome, facts["num_entries"], memories)
    except (KeyError, TypeError, ValueError, AttributeError, RemoteError) as error:
        raise FileError(f"checkpoint makes no sense, {type(error).__name__}: {error}", where=path) from error


def _octets(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())
