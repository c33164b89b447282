"""Everything of the client that touches Flower: the ClientApp, and how a link's task becomes its message.

Flower changes its insides every few weeks; what must follow is in this file alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping
from typing import Any, cast

# Flower reads these when it is imported: no telemetry, no question for updates.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp

from pemn.errors import ConfigError, MalformedFrame, PemnError
from pemn.wire.messages import Content, Failure, decode, encode
from pemn_client.node import QUERY, TRAIN, Node

__all__ = ["ClientApp", "Context", "client_app", "node_context", "notes", "run_app", "slot_of"]

_RECORD, _KEY = "pemn", "content"
_HELLO, _SLOT, _NUM_SLOTS = "hello", "slot", "num-slots"
_DAY_S = 86_400.0


def client_app(
    node_of: Callable[[Context], Node],
    pack: Callable[[Content], bytes] = encode,
    unpack: Callable[[bytes], Content] = decode,
    *,
    explain: bool = False,
) -> ClientApp:
    """Returns the ClientApp: it hands each task to the node that it is for.

    Args:
        node_of: Finds the node of a Flower context.
        pack: Makes an answer the bytes of a Flower message.
        unpack: Finds the task of a Flower message's bytes.
        explain: Whether an error becomes an answer, in one line, for engines that would send a traceback.
    """
    app = ClientApp()

    def answer(action: str, message: Message, context: Context) -> Message:
        try:
            content = node_of(context).handle(action, unpack(_content(message)))
        except PemnError as error:
            if not explain:
                raise
            content = Content(error=Failure(error.code, str(error)))
        return Message(_record(pack(content)), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(TRAIN, message, context)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return answer(QUERY, message, context)

    @app.query(_HELLO)
    def hello(message: Message, context: Context) -> Message:
        """Tells which client this is: Flower's own engines know their nodes by random numbers."""
        slot, num_slots = slot_of(context)
        return Message(
            RecordDict({_RECORD: ConfigRecord({_SLOT: slot, _NUM_SLOTS: num_slots})}), reply_to=message
        )

    return app


def slot_of(context: Context) -> tuple[int, int]:
    """Returns a node's slot, and how many it believes there are.

    Raises:
        ConfigError: If its node config does not say.
    """
    slot, num_slots = (context.node_config.get(key) for key in ("partition-id", "num-partitions"))
    if type(slot) is not int or type(num_slots) is not int or not 0 <= slot < num_slots:
        wanted = "partition-id=I num-partitions=N, 0 <= I < N"
        raise ConfigError(
            "which client this is", got=f"{slot} of {num_slots}", wanted=wanted, where="node config"
        )
    return slot, num_slots


def notes(context: Context) -> MutableMapping[str, Any]:
    """Returns what Flower keeps of a node from message to message of a run: a few integers and bytes."""
    record = context.state.config_records.setdefault(_RECORD, ConfigRecord())
    return cast(MutableMapping[str, Any], record)


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
