"""Everything of the client that touches Flower: the ClientApp, and how a link's task becomes its message.

Flower changes its insides every few weeks; what must follow is in this file alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

# Flower reads these when it is imported: no telemetry, no question for updates.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp

from pemn.errors import MalformedFrame
from pemn.wire.messages import Content, decode, encode
from pemn_client.node import QUERY, TRAIN, Node

__all__ = ["ClientApp", "client_app", "node_context", "run_app"]

_RECORD, _KEY = "pemn", "content"
_DAY_S = 86_400.0


def client_app(
    node_of: Callable[[Context], Node],
    pack: Callable[[Content], bytes] = encode,
    unpack: Callable[[bytes], Content] = decode,
) -> ClientApp:
    """Returns the ClientApp: it hands each task to the node that it is for.

    Args:
        node_of: Finds the node of a Flower context.
        pack: Makes an answer the bytes of a Flower message.
        unpack: Finds the task of a Flower message's bytes.
    """
    app = ClientApp()

    def answer(action: str, message: Message, context: Context) -> Message:
        made = node_of(context).handle(action, unpack(_content(message)))
        return Message(_record(pack(made)), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(TRAIN, message, context)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return answer(QUERY, message, context)

    return app


def run_app(app: ClientApp, context: Context, action: str, content: bytes) -> bytes:
    """Lets the app do a task that came as bytes.

    Args:
        app: What `client_app` returned.
        context: Of this node.
        action: `train` or `query`.
        content: An encoded task.

    Returns:
        The encoded answer.

    Raises:
        MalformedFrame: If it is no task.
    """
    if action not in (TRAIN, QUERY):
        raise MalformedFrame("task", got=action, wanted=f"{TRAIN} or {QUERY}")
    metadata = Metadata(
        run_id=context.run_id,
        message_id="task",
        src_node_id=0,
        dst_node_id=context.node_id,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=_DAY_S,
        message_type=action,
    )
    return _content(app(make_message(metadata, _record(content)), context))


def node_context(slot: int, num_slots: int) -> Context:
    """Returns the Flower context of a node that is not started by Flower."""
    config: dict[str, bool | float | int | str] = {"partition-id": slot, "num-partitions": num_slots}
    return Context(run_id=0, node_id=slot + 1, node_config=config, state=RecordDict(), run_config={})


def _record(content: bytes) -> RecordDict:
    return RecordDict({_RECORD: ConfigRecord({_KEY: content})})


def _content(message: Message) -> bytes:
    content = message.content.config_records.get(_RECORD, ConfigRecord()).get(_KEY)
    if not isinstance(content, bytes):
        raise MalformedFrame("Flower message without PEMN content")
    return content
