"""Starts the commands as real processes and reads what they print."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A command whose output goes to a file."""

    def __init__(self, log: Path, *words: object) -> None:
        self.log = log
        with log.open("ab") as file:
            self.popen = subprocess.Popen(
                [str(BIN / str(words[0])), *map(str, words[1:])], stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, pattern: str, timeout_s: float = 90) -> None:
        """Waits until the output has a match."""
        end = time.monotonic() + timeout_s
        while not re.search(pattern, self.output):
            assert self.popen.poll() is None, f"ended with {self.popen.returncode}:\n{self.output}"
            assert time.monotonic() < end, f"no {pattern!r} within {timeout_s} s:\n{self.output}"
            time.sleep(0.01)

    def wait(self, timeout_s: float = 120) -> int:
        """Returns the exit code."""
        return self.popen.wait(timeout_s)

    def kill(self) -> None:
        """kill -9."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()


class Site:
    """A server and its clients, each with what it needs, in one folder."""

    def __init__(self, folder: Path, num_clients: int = 3) -> None:
        self.folder, self.num_clients = folder, num_clients
        self.port = free_port()
        self.processes: list[Process] = []
        subprocess.run(
            [str(BIN / "pemn-server"), "provision", str(folder / "tls"), f"--clients={num_clients}"],
            check=True,
        )

    def server(self, name: str, *options: object) -> Process:
        return self._spawn(
            name,
            "pemn-server",
            "start",
            "--listen",
            f"127.0.0.1:{self.port}",
            "--credentials",
            self.folder / "tls",
            "--min-clients",
            self.num_clients,
            "--run-dir",
            self.folder / name,
            "--model",
            "mlp-256",
            *options,
        )

    def client(self, slot: int, *options: object, port: int | None = None) -> Process:
        return self._spawn(
            f"client-{slot}",
            "pemn-client",
            "start",
            "--server",
            f"127.0.0.1:{port or self.port}",
            "--credentials",
            self.folder / f"tls/client-{slot}",
            "--shard",
            f"{slot}/{self.num_clients}",
            "--store",
            self.folder / f"store-{slot}",
            *options,
        )

    def clients(self, *options: object, port: int | None = None) -> list[Process]:
        return [self.client(slot, *options, port=port) for slot in range(self.num_clients)]

    def close(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.kill()

    def _spawn(self, name: str, *words: object) -> Process:
        process = Process(self.folder / f"{name}.log", *words)
        self.processes.append(process)
        return process
