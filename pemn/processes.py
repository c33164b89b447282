"""Work in processes of its own."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from pemn.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def processes(
    count: int, begin: Callable[[], None], killed: str, remedy: str
) -> Iterator[ProcessPoolExecutor]:
    """Starts processes, and ends them, at once if the caller is stopped: the work must bear that at any moment.

    They also end when this process is killed.

    Args:
        count: How many.
        begin: A function of a module; called first in each.
        killed: What an error says if one of them was killed.
        remedy: What is to be done then.

    Raises:
        ConfigError: If a process was killed.
    """
    # A new interpreter each: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, functools.partial(_begin, begin)) as pool:
        try:
            yield pool
            pool.shutdown(cancel_futures=True)
        except BrokenProcessPool as error:
            raise ConfigError(killed, wanted=remedy) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int, begin: Callable[[], None]
) -> Iterator[tuple[Item, Result]]:
    """Yields each item with what came of it, as soon as it is done.

    When the caller stops, all processes are ended at once: the work must bear that at any moment.

    Args:
        work: A function of a module.
        items: That can be pickled, as the results can.
        jobs: How many at a time; one is done here, without a process.
        begin: A function of a module; called first in each process.

    Raises:
        ConfigError: If a process was killed.
    """
    if jobs == 1:
        begin()
        for item in items:
            yield item, work(item)
        return
    count, remedy = min(jobs, max(len(items), 1)), "fewer --jobs, if memory is short; then --resume"
    with processes(count, begin, "a run was killed", remedy) as pool:
        futures = {pool.submit(work, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _begin(begin: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of them; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # nobody waits for this process any more, and the queue that it waits for never says so
