"""The ClientApp for Flower's own engines: Ray's actors, and the processes that a SuperNode starts.

None of them lasts: whatever a client needs is in its Flower context and in a folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pemn.errors import ConfigError
from pemn_client.flower import Context, client_app, notes, slot_of
from pemn_client.node import Node
from pemn_client.shared_store import SharedStore

if TYPE_CHECKING:
    from pemn_client.trainer import TrainerFactory

if os.environ.get("RAY_ADDRESS", "local") == "local":
    # Flower starts Ray for a simulation after it has read this module. A cluster of its own is meant, not one that
    # somebody has, or once had, on this machine; and since Ray has no passwords, one that listens on loopback alone,
    # for which Ray has only this switch.
    os.environ["RAY_ADDRESS"] = "local"
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

# torch is imported when a task needs it: it takes two seconds, and a SuperNode starts a process a message.


@dataclass(frozen=True)
class SharedNodes:
    """Finds the node of a Flower context, in any process, from what its last message left.

    Attributes:
        folder: For all clients' public states; every process must see the same one.
        make_trainer: Makes their trainers.
        threads: Of torch, in each process.
    """

    folder: Path
    make_trainer: TrainerFactory
    threads: int = 1

    def __call__(self, context: Context) -> Node:
        """Returns the node.

        Raises:
            PemnError: If the context does not say which client it is, or the folder cannot be used.
        """
        from pemn.training.device import set_threads

        slot, _ = slot_of(context)
        set_threads(self.threads, num_processes=1)
        return Node(slot, SharedStore(self.folder, slot, notes(context)), self.make_trainer)


def no_clock() -> float:
    """Stands still: the same bytes every time; how long a ClientApp takes, Flower itself measures."""
    return 0.0


def _node_of(context: Context) -> Node:
    """Returns the node of a client that was started by `flwr run`."""
    from pemn.training.device import choose_device
    from pemn_client.trainer import TrainerFactory

    _, num_slots = slot_of(context)
    device, data_dir = _text(context, "device") or "auto", _text(context, "data-dir")
    choose_device(device)
    threads = _text(context, "threads") or "1"
    if not threads.isdecimal() or threads == "0":
        raise ConfigError("threads", got=threads, wanted="a whole number from 1")
    make_trainer = TrainerFactory(
        _text(context, "dataset"),
        None if data_dir is None else Path(data_dir),
        num_slots,
        device,
        _text(context, "model"),
        clock=no_clock,
        methods=(_text(context, "method") or "mask",),
        half=(_text(context, "half") or "false").lower() == "true",
    )
    folder = Path(_text(context, "store") or f"runs/flower-{context.run_id}/clients")
    return SharedNodes(folder, make_trainer, int(threads))(context)


def _text(context: Context, key: str) -> str | None:
    """Returns an option: what the node says of itself, else what the run says; empty means not given."""
    value = context.node_config.get(key, context.run_config.get(key, ""))
    return None if value == "" else str(value)


app = client_app(_node_of, explain=True)
"""What `[tool.flwr.app.components]` names."""
