"""Work in processes of its own: they end with the one that began them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pemn.processes import in_processes

BEGIN_AND_WAIT = """
import os, time
from pemn.processes import processes

if __name__ == "__main__":
    with processes(1, int, "killed", "nothing") as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def test_processes_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN_AND_WAIT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _is_alive(child)
        parent.kill()
    deadline = time.monotonic() + 20
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        assert not _is_alive(child)
    finally:
        if _is_alive(child):
            os.kill(child, signal.SIGKILL)


def test_each_item_comes_with_its_result() -> None:
    for jobs in (1, 2):
        found = list(in_processes(abs, [-3, 1, -2], jobs, _nothing))
        assert sorted(found) == [(-3, 3), (-2, 2), (1, 1)]


def _nothing() -> None:
    """There is nothing to begin with."""


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # nobody may be there to bury it
