"""Many pieces of work, a few at a time, each in a process of its own."""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pemn.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    # A new interpreter each: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, max(len(items), 1)), context, functools.partial(_begin, begin))
    with pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ConfigError(
                "a run was killed", wanted="fewer --jobs, if memory is short; then --resume"
            ) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _begin(begin: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of them; the first one ends the others
    begin()
