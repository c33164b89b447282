"""`pemn-client start`: one process that lives as long as the run."""

from __future__ import annotations

import time
from pathlib import Path

from pemn.link.address import Address
from pemn.link.client import LinkClient, LinkState
from pemn.link.keys import ClientKey
from pemn.link.provision import ClientFiles
from pemn.training.device import choose_device, set_threads
from pemn.wire.messages import Content, Failure, encode
from pemn_client.flower import client_app, node_context, run_app
from pemn_client.node import Node
from pemn_client.settings import StartSettings
from pemn_client.store import FileStore
from pemn_client.trainer import TrainerFactory

_REMINDER_S = 30.0


def start(settings: StartSettings) -> None:
    """Takes part in a run until the server says that it is over.

    Raises:
        PemnError: If the server is away for too long, refuses this client, or the run does not fit it.
    """
    shares_machine = Address.parse(settings.server).is_loopback
    set_threads(settings.threads, num_processes=settings.num_slots + 1 if shares_machine else 1)
    choose_device(settings.device)  # here, where a wrong one stops nobody else
    store = FileStore(settings.store or Path(f"pemn-store-{settings.slot}"))
    factory = TrainerFactory(
        settings.dataset,
        settings.data_dir,
        settings.num_slots,
        settings.device,
        settings.model,
        half=settings.half,
    )
    key = ca = None
    if settings.credentials is not None:
        files = ClientFiles(settings.credentials)
        key, ca = ClientKey.read(files.key), files.authority
    node = Node(settings.slot, store, factory, sign=None if key is None else key.sign_update)
    app, context = client_app(lambda _: node), node_context(settings.slot, settings.num_slots)
    link = LinkClient(
        settings.server,
        ca=ca,
        client=key or store.client_id(),
        slot=settings.slot,
        num_slots=settings.num_slots,
    )
    with store.locked():
        link.run(
            lambda action, content: run_app(app, context, action, content),
            explain=lambda error: encode(Content(error=Failure(error.code, str(error)))),
            on_state=_Told(settings.slot).state,
            give_up_after_s=settings.give_up_after_s,
        )


class _Told:
    """Tells a person how the link is doing: changes, and every half minute that the server is still away."""

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._away, self._said = "", 0.0

    def state(self, state: LinkState, detail: str) -> None:
        """Takes a change of state."""
        match state:
            case LinkState.CONNECTED:
                self._away = ""
                self._say(f"connected to {detail}")
            case LinkState.DONE:
                self._say("the run is over")
            case LinkState.AWAY if detail != self._away or time.monotonic() - self._said > _REMINDER_S:
                self._say(f"the server is away, trying again: {detail}")
                self._away = detail

    def _say(self, text: str) -> None:
        print(f"client {self._slot}: {text}", flush=True)
        self._said = time.monotonic()
