"""Servers and clients that kill themselves at a named point, each in a process that is forked in no time."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pemn_client.cli
import pemn_client.store
import pemn_server.cli
import pemn_server.run
import pemn_server.start
from pemn.link.client import LinkClient
from pemn.link.keys import ClientKey
from pemn.methods import Client, Server
from pemn_client.node import Node
from pemn_client.store import FileStore
from pemn_server import checkpoint, results
from pemn_server.flower import Fleet, PemnGrid
from pemn_server.journal import Journal
from pemn_server.record import LedgerRecord
from pemn_server.run import Federation

Point = tuple[Any, str, str, int]
"""Whose method or function, which, before or after it, and at which of its calls."""

SERVER_POINTS: dict[str, Point] = {
    "the folder is there": (pemn_server.start, "prepare_run_dir", "after", 1),
    "the journal is there": (Journal, "__init__", "after", 1),
    "the first snapshot is there": (checkpoint, "save", "after", 1),
    "clients are joining": (Fleet, "ask", "after", 1),
    "clients have joined": (LedgerRecord, "keep_end", "after", 1),
    "tasks have been sent": (PemnGrid, "push_messages", "after", 4),
    "a vote has come": (Journal, "add", "before", 3),
    "a vote is kept": (Journal, "add", "after", 3),
    "all votes are kept": (Journal, "add", "after", 4),
    "the books are written": (Journal, "close_round", "before", 2),
    "a round is closed": (Journal, "close_round", "after", 2),
    "its votes are counted": (Server, "commit", "after", 2),
    "the snapshot before is moved": (checkpoint, "save", "before", 3),
    "a snapshot is half written": (checkpoint, "write_atomic", "before", 3),
    "a snapshot is written": (checkpoint, "save", "after", 3),
    "the journal is cut": (Journal, "drop_before", "after", 2),
    "the last round is over": (Federation, "_close", "after", 3),
    "the last broadcast is out": (Fleet, "finish", "before", 1),
    "clients have gone": (Fleet, "finish", "after", 1),
    "results are half written": (results, "write_atomic", "after", 2),
}

CLIENT_POINTS: dict[str, Point] = {
    "the client has its key": (ClientKey, "read", "after", 1),
    "the link is about to open": (LinkClient, "run", "before", 1),
    "the spec has come": (Node, "handle", "before", 1),
    "the spec is half written": (pemn_client.store, "write_atomic", "before", 2),
    "the spec is kept": (FileStore, "save_spec", "after", 1),
    "a task has come": (Node, "handle", "before", 3),
    "a state is half written": (pemn_client.store, "write_atomic", "before", 3),
    "a state is kept": (FileStore, "save_state", "after", 1),
    "a round is trained": (Client, "train", "after", 2),
    "a vote is ready": (Node, "handle", "after", 3),
    "the last broadcast has come": (Node, "handle", "before", 5),
}

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *(__name__, "pemn_server.stock", "pemn_client.start", "sklearn.datasets", "grpc.experimental"),
        # What torch imports at the first step and at the first export, which takes seconds.
        *("torch._dynamo", "torch.export", "torch._functorch.aot_autograd"),
        *("torch.onnx._internal.exporter._compat", "torch.onnx._internal.exporter._torchlib.ops"),
        "onnxscript.function_libs.torch_lib.ops",
    ]
)


def serve(
    log: Path,
    options: Sequence[object],
    point: str | None = None,
    max_file_bytes: int | None = None,
    return_timeout_s: float | None = None,
    *,
    is_watched: bool = False,
) -> ForkServerProcess:
    """Starts `pemn-server start`.

    Args:
        log: Where its output goes.
        options: Of the command.
        point: Where it kills itself.
        max_file_bytes: No file of it grows beyond that, as if the disk were full.
        return_timeout_s: How long it waits for clients to come back after the last round.
        is_watched: Whether it fails if it unpickles anything; see `_watched`.
    """
    return _start(is_watched, _serve, log, options, point, max_file_bytes, return_timeout_s)


def take_part(
    log: Path, options: Sequence[object], point: str | None = None, *, is_watched: bool = False
) -> ForkServerProcess:
    """Starts `pemn-client start`."""
    return _start(is_watched, _take_part, log, options, point)


def _start(
    is_watched: bool, target: Callable[..., None], log: Path, options: Sequence[object], *more: object
) -> ForkServerProcess:
    arguments = (log, [*map(str, options)], *more)
    if is_watched:
        process = _CONTEXT.Process(target=_watched, args=(target, *arguments))
    else:
        process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def _watched(target: Callable[..., None], *arguments: object) -> None:
    """Works where nothing may be unpickled: slowly, for Python asks the hook about much else."""
    sys.addaudithook(_no_pickle)
    target(*arguments)


def _serve(
    log: Path,
    options: list[str],
    point: str | None,
    max_file_bytes: int | None,
    return_timeout_s: float | None,
) -> None:
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    if return_timeout_s is not None:
        pemn_server.run._RETURN_TIMEOUT_S = return_timeout_s
    if point is not None:
        _arm(*SERVER_POINTS[point])
    _run(log, ["pemn-server", "start", *options], pemn_server.cli.main)


def _take_part(log: Path, options: list[str], point: str | None) -> None:
    if point is not None:
        _arm(*CLIENT_POINTS[point])
    _run(log, ["pemn-client", "start", *options], pemn_client.cli.main)


def _run(log: Path, words: list[str], main: Callable[[], int]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = words
    sys.exit(main())


def _no_pickle(event: str, _: object) -> None:
    """Nothing that a server or a client reads, whoever it is from, names code to run."""
    if event == "pickle.find_class":
        raise AssertionError("something was unpickled")


def _arm(owner: Any, name: str, when: str, count: int) -> None:
    """Makes a function kill this process."""
    real, left = getattr(owner, name), count

    def call(*given: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            _die()
        result = real(*given, **named)
        if left == 0:
            _die()
        return result

    setattr(owner, name, call)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
