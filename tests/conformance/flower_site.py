"""Flower's own processes in a folder: a SuperLink, SuperNodes and `flwr run`, all of them ended with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.e2e.processes import BIN, free_port

APP = Path(__file__).parents[2] / "deploy/flower"


class FlowerSite:
    """Starts them.

    Args:
        folder: For FLWR_HOME, by which all processes are known, and for what they print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._home = folder, folder / "home"
        self._home.mkdir()
        self._port = free_port()
        self.listening: set[str] = set()
        """Addresses that were seen, as the kernel writes them."""
        self._processes: list[subprocess.Popen[bytes]] = []
        paths = [str(APP.parents[1] / name) for name in ("", "server", "client")]
        self._env = os.environ | {
            "FLWR_HOME": str(self._home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(self._port),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
        }
        connections = (APP / "config.toml").read_text()
        (self._home / "config.toml").write_text(connections.replace(":8000", f":{self._port}"))

    def start_superlink(self) -> None:
        """Returns when it is healthy."""
        host = ("--insecure", "--host", "127.0.0.1", "--port", self._port)
        self._start("superlink", "flower-superlink", *host, "--disable-runtime-dependency-installation")
        end = time.monotonic() + 60
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health"),
            ):
                return
            assert time.monotonic() < end, self.logs()
            time.sleep(0.1)

    def start_supernode(self, slot: int, num_slots: int) -> None:
        """Its local port is a free one."""
        config = f'partition-id={slot} num-partitions={num_slots} store="{self._folder}/store-{slot}"'
        where = ("--insecure", "--superlink", f"127.0.0.1:{self._port}", "--port", free_port())
        self._start(f"supernode-{slot}", "flower-supernode", *where, "--node-config", config)

    def run(self, connection: str, run_config: str) -> None:
        """`flwr run`: returns when the run has been taken."""
        words = [str(BIN / "flwr"), "run", str(APP), connection, "--run-config", run_config]
        done = subprocess.run(
            words, env=self._env, cwd=self._folder, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def wait_for(self, path: Path, timeout_s: float) -> None:
        """Waits until a file is there, and looks meanwhile where the processes listen."""
        end = time.monotonic() + timeout_s
        while not path.exists():
            self.listening |= self._listening()
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        """What all of them have printed, the last of it."""
        files = [*self._folder.glob("*.log"), *self._home.glob("**/*.log")]
        return "\n".join(f"== {path.name}\n{path.read_text()[-5000:]}" for path in files)

    def close(self) -> None:
        """kill -9 for all that Flower has started here, whichever session it has put it in."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            alive = [int(path.name) for path in self._alive()]
            if not alive:
                for process in self._processes:
                    process.wait()
                return
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        raise AssertionError(f"still alive: {alive}")

    def _alive(self) -> list[Path]:
        mark = f"FLWR_HOME={self._home}".encode()
        return [path for path in Path("/proc").glob("[0-9]*") if mark in _environment(path)]

    def _listening(self) -> set[str]:
        sockets = set()
        for process in self._alive():
            with contextlib.suppress(OSError):  # it may end meanwhile
                sockets |= {str(path.readlink()) for path in (process / "fd").iterdir()}
        rows = [
            row.split() for n in ("tcp", "tcp6") for row in Path(f"/proc/net/{n}").read_text().splitlines()
        ]
        # Local address and port, state (0A listens) and inode are columns 1, 3 and 9.
        return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}

    def _start(self, name: str, *words: object) -> None:
        with (self._folder / f"{name}.log").open("wb") as file:
            process = subprocess.Popen(
                [str(BIN / str(words[0])), *map(str, words[1:])],
                env=self._env,
                cwd=self._folder,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)


LOOPBACK = {"0100007F", "0" * 16 + "FFFF00000100007F", "0" * 24 + "01000000"}
"""127.0.0.1, the same as IPv6 has it, and ::1."""


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or somebody else's
        return []
