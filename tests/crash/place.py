"""A small federation whose processes may be killed."""

from __future__ import annotations

import json
import re
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from pemn.link.provision import provision
from tests.crash.actors import serve, take_part
from tests.e2e.processes import free_port

ROUNDS, CLIENTS, TIMEOUT_S = 3, 2, 120


class Place:
    """A server and its clients, in one folder."""

    def __init__(self, folder: Path, *, is_watched: bool = False) -> None:
        self.folder, self.port, self.is_watched = folder, free_port(), is_watched
        self.run_dir, self.server_log = folder / "run", folder / "server.log"
        self.processes: list[ForkServerProcess] = []
        self.credentials = folder / "tls"
        provision(self.credentials, [], CLIENTS)

    def serve(
        self,
        point: str | None = None,
        *more: object,
        max_file_bytes: int | None = None,
        return_timeout_s: float | None = None,
    ) -> ForkServerProcess:
        options = [
            *("--listen", f"127.0.0.1:{self.port}", "--dataset", "digits", "--seed", 3),
            *("--credentials", self.credentials),
            *("--model", "mlp-32", "--min-clients", CLIENTS, "--rounds", ROUNDS, "--epochs", 1),
            *("--threads", 1, "--run-dir", self.run_dir, *more),
        ]
        self.processes.append(
            serve(
                self.server_log,
                options,
                point,
                max_file_bytes,
                return_timeout_s,
                is_watched=self.is_watched,
            )
        )
        return self.processes[-1]

    def clients(self) -> list[ForkServerProcess]:
        return [self.client(slot) for slot in range(CLIENTS)]

    def client(self, slot: int, point: str | None = None) -> ForkServerProcess:
        options = [
            *("--server", f"127.0.0.1:{self.port}", "--shard", f"{slot}/{CLIENTS}"),
            *("--credentials", self.credentials / f"client-{slot}"),
            *("--threads", 1, "--store", self.folder / f"store-{slot}"),
        ]
        self.processes.append(
            take_part(self.folder / f"client-{slot}.log", options, point, is_watched=self.is_watched)
        )
        return self.processes[-1]

    def trained(self) -> list[tuple[int, int]]:
        """Slot and round of every training."""
        found = []
        for slot in range(CLIENTS):
            text = (self.folder / f"client-{slot}.log").read_text()
            found += [(slot, int(round_)) for round_ in re.findall(r"round (\d+): trained", text)]
        return sorted(found)

    def results(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.run_dir / "summary.json").read_text())
        ledger = [json.loads(line) for line in (self.run_dir / "ledger.jsonl").read_text().splitlines()]
        keys = [(entry["round"], entry["slot"], entry["direction"]) for entry in ledger]
        assert len(keys) == len(set(keys))
        assert {round_ for round_, _, _ in keys} >= {*range(1, ROUNDS + 1)}
        names = ("weights_sha256", "accuracy", "accuracy_by_round", "client_rounds", "model_bytes")
        return {name: summary[name] for name in names}

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def ends(process: ForkServerProcess) -> int | None:
    process.join(TIMEOUT_S)
    return process.exitcode
