"""Where torch computes, and with how many threads."""

from __future__ import annotations

import os

import torch

from pemn.errors import ConfigError


def set_threads(num_threads: int | None, *, num_processes: int) -> None:
    """Sets the number of torch's threads.

    Trainers that share cores and each use all of them run several times slower than with one thread each.

    Args:
        num_threads: As the user wants it, or None.
        num_processes: How many processes share this machine's cores, for the default.
    """
    num_cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(num_threads or max(1, num_cores // num_processes))


def choose_device(name: str) -> torch.device:
    """Returns the device for `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: If CUDA is asked for and not there.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError("device", got="cuda", wanted="auto or cpu: torch finds no CUDA device here")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")
