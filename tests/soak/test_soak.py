"""A server over many rounds with clients that come and go, and over bad networks."""

from __future__ import annotations

import contextlib
import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.processes import free_port
from tests.soak.faults import FaultyProxy, slow_strangers
from tests.soak.rig import Crowd, Run, serve

MIB = 1 << 20


@pytest.mark.parametrize(
    ("num_rounds", "num_clients"), [(60, 20), pytest.param(1000, 50, marks=pytest.mark.slow)]
)
def test_clients_that_come_and_go_cost_no_memory(num_rounds: int, num_clients: int, tmp_path: Path) -> None:
    """What the server holds does not grow with the rounds, and no round is lost."""
    goal = round(0.6 * num_clients)
    run = Run(tmp_path, free_port(), num_clients, num_rounds, goal, 1.3, goal // 2, round_timeout_s=5.0)
    server, crowd = serve(run), Crowd(leaves=0.02, forgets=0.3)
    crowd.come(run, range(num_clients))
    server.join(30 + 2 * num_rounds)
    assert server.exitcode == 0
    crowd.wait(60)
    assert crowd.num_left > num_rounds * goal * 0.01
    memory = np.array([num_bytes for _, num_bytes in run.rounds][num_rounds // 3 :])
    assert len(run.rounds) == num_rounds
    growth = np.polyfit(np.arange(len(memory)), memory, 1)[0] * len(memory)
    assert growth < max(3 * MIB, 2 * memory.std()), f"{growth / MIB:.1f} MiB over {len(memory)} rounds"


def num_errors(run: Run) -> int:
    """Answers that said that a client lacked something."""
    lines = map(json.loads, (run.folder / "run/ledger.jsonl").read_text().splitlines())
    return sum("error" in line["payload_by_kind"] for line in lines)


def median_round_s(run: Run) -> float:
    ends = [at for at, _ in run.rounds]
    assert len(ends) == run.num_rounds
    return statistics.median(np.diff(ends[2:]))


def test_bad_networks_hold_nobody_up(tmp_path: Path) -> None:
    """Eight honest clients are enough for a round; four more come over bad networks, and a hundred slow strangers."""
    times = []
    for faults in (False, True):
        run = Run(tmp_path / str(faults), free_port(), 12, 30, 8, 1.5, 4)
        run.folder.mkdir()
        server, honest, others = serve(run), Crowd(pause_s=0.1), Crowd(pause_s=0.1, may_fail=True)
        with contextlib.ExitStack() as stack:
            honest.come(run, range(8))
            if faults:
                proxies = [FaultyProxy(run.port, fault) for fault in ("delay", "drop", "truncate", "corrupt")]
                for slot, proxy in enumerate(proxies, 8):
                    stack.callback(proxy.close)
                    others.come(run, range(slot, slot + 1), proxy.port)
                honest.wait_until_here(run)
                stack.enter_context(slow_strangers(run.port, 100))
            else:
                honest.come(run, range(8, 12))
            server.join(120)
            assert server.exitcode == 0
            honest.wait(60)
            if not faults:
                assert (
                    num_errors(run) == 0
                )  # a vote that is late says all the same which state its client has
            if faults:
                assert all(proxy.num_faults for proxy in proxies), [p.num_faults for p in proxies]
        times.append(median_round_s(run))
    assert times[1] < 2 * times[0], times
