"""`pemn-client start`: one process that lives as long as the run."""

from __future__ import annotations

from pemn.link.address import Address
from pemn.link.client import LinkClient, LinkState
from pemn.training.local import set_threads
from pemn.wire.messages import Content, Failure, encode
from pemn_client.flower import client_app, node_context, run_app
from pemn_client.node import Node
from pemn_client.settings import StartSettings
from pemn_client.store import FileStore
from pemn_client.trainer import TrainerFactory


def start(settings: StartSettings) -> None:
    """Takes part in a run until the server says that it is over.

    Raises:
        PemnError: If the server is away for too long, refuses this client, or the run does not fit it.
    """
    shares_machine = Address.parse(settings.server).is_loopback
    set_threads(settings.threads, num_processes=settings.num_slots + 1 if shares_machine else 1)
    store = FileStore(settings.store)
    factory = TrainerFactory(settings.dataset, settings.data_dir, settings.num_slots, settings.device)
    node = Node(settings.slot, store, factory)
    app, context = client_app(lambda _: node), node_context(settings.slot, settings.num_slots)
    link = LinkClient(
        settings.server,
        ca=settings.ca,
        client_id=store.client_id(),
        slot=settings.slot,
        num_slots=settings.num_slots,
    )
    link.run(
        lambda action, content: run_app(app, context, action, content),
        explain=lambda error: encode(Content(error=Failure(error.code, str(error)))),
        on_state=lambda state, detail: _tell(settings.slot, state, detail),
        give_up_after_s=settings.give_up_after_s,
    )


def _tell(slot: int, state: LinkState, detail: str) -> None:
    texts = {
        LinkState.CONNECTING: f"connecting to {detail}",
        LinkState.CONNECTED: "connected",
        LinkState.AWAY: f"the server is away, trying again: {detail}",
        LinkState.DONE: "the run is over",
    }
    print(f"client {slot}: {texts[state]}", flush=True)
