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

    Of CUDA's kernels torch then takes, in all of the process, those that repeat their results.

    Raises:
        ConfigError: If CUDA is asked for and not there.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ConfigError("device", got="cuda", wanted="auto or cpu: torch finds no CUDA device here")
    if not has_cuda or name == "cpu":
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when its first matrix product is made
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)  # an operator that has no such kernel says so
    return torch.device("cuda")
