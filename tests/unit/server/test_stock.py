"""PEMN's fleet over a Grid of Flower's, whose nodes are known by random numbers and may fail."""

from __future__ import annotations

import importlib.util
import threading
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from pemn.errors import ConfigError, NetworkError, PemnError
from pemn.federation.levels import HIGHEST, LOWEST
from pemn.methods import Server
from pemn.wire.messages import Metrics, encode
from pemn_client.flower import client_app, notes, slot_of
from pemn_client.node import Node
from pemn_client.shared_store import SharedStore
from pemn_server.cli import main
from pemn_server.flower import Answer, Fleet
from pemn_server.settings import StockSettings
from pemn_server.stock import StockGrid
from pemn_server.stock_app import _settings
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((9, 13), (10, 9)))
NUM_SLOTS = SPEC.data.num_slots
APP = Path(__file__).parents[3] / "deploy/flower/pyproject.toml"


class Shift:
    """A trainer without a network."""

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        moved = q + np.random.default_rng(round_).normal(0, 5000, q.size)
        return moved.clip(LOWEST, HIGHEST).astype(np.uint16), Metrics(7, 1, 0)


class FlowerGrid(Grid):
    """What a SuperLink does for a ServerApp: numbers for nodes, a context each, answers when asked for."""

    def __init__(self, folder: Path, partitions: dict[int, tuple[int, int]]) -> None:
        def node_of(context: Context) -> Node:
            slot, _ = slot_of(context)
            return Node(slot, SharedStore(folder, slot, notes(context)), lambda spec, slot: Shift())

        self.app: ClientApp = client_app(node_of, explain=True)
        self.online: dict[int, Context] = {}
        for node, (slot, num_slots) in partitions.items():
            self.join(node, slot, num_slots)
        self.broken: set[int] = set()
        self.tasks: dict[str, Message] = {}

    def join(self, node: int, slot: int, num_slots: int) -> None:
        config: dict[str, Any] = {"partition-id": slot, "num-partitions": num_slots}
        self.online[node] = Context(1, node, config, RecordDict(), {})

    def get_node_ids(self) -> list[int]:
        return list(self.online)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in messages:
            number = f"message {len(self.tasks)}"
            message.metadata.__dict__["_message_id"] = number
            self.tasks[number] = message
            numbers.append(number)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._answer(self.tasks[number]) for number in message_ids]

    def _answer(self, task: Message) -> Message:
        node = task.metadata.dst_node_id
        if node in self.broken:
            return Message(Error(code=2, reason="out of memory"), reply_to=task)
        try:
            return self.app(task, self.online[node])
        except PemnError as error:
            return Message(Error(code=2, reason=str(error)), reply_to=task)

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *_: Any, **__: Any) -> list[Message]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    """A ServerApp's process: Flower makes no message outside."""
    before = dict(vars(TaskIdentity))
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    yield
    for name in ("_run_id", "_node_id", "_task_id"):
        setattr(TaskIdentity, name, before[name])


@pytest.fixture
def flower(tmp_path: Path) -> FlowerGrid:
    return FlowerGrid(tmp_path, {900 - slot: (slot, NUM_SLOTS) for slot in range(NUM_SLOTS)})


def ask(fleet: Fleet, action: str, tasks: dict[int, Any]) -> dict[int, Answer]:
    return {answer.slot: answer for answer in fleet.ask(action, tasks, 0, 10)}


def slots(fleet: Fleet) -> list[int]:
    fleet.slots()  # says hello
    return fleet.slots()


def test_a_round_and_its_books(flower: FlowerGrid, tmp_path: Path) -> None:
    fleet, server = Fleet(StockGrid(flower, NUM_SLOTS)), Server.of(SPEC)
    assert slots(fleet) == list(range(NUM_SLOTS))
    state, ballot = server.start(), server.open()
    tasks = server.tasks(state, fleet.slots())
    for slot, answer in ask(fleet, "query", tasks).items():
        assert answer.content is not None
        assert answer.content.ack is not None
        server.check_ack(state, slot, answer.content.ack, server.weights_sha256(state))
        state = server.seen(state, slot)
    entries = {(e.slot, e.direction): e for e in fleet.close_round(0)}
    for slot, content in tasks.items():
        entry = entries[slot, "down"]
        assert (entry.messages, entry.payload, entry.wire) == (1, len(encode(content)), None)
        assert entry.payload < entry.framed < entry.payload + 300
    assert fleet.wire_source == "framed"

    votes = ask(fleet, "train", server.tasks(state, fleet.slots()))
    for slot, answer in votes.items():
        assert answer.content is not None
        assert answer.content.update is not None
        state = server.take_vote(state, ballot, slot, answer.content.update)
    state = server.commit(state, ballot)
    again = ask(fleet, "query", server.tasks(state, fleet.slots()))
    assert {a.content.ack.round for a in again.values() if a.content and a.content.ack} == {1}
    # Flower keeps a client's place, and the folder one copy of what they share.
    for context in flower.online.values():
        record = context.state.config_records["pemn"]
        assert dict(record) == {
            "run-id": f"{SPEC.run_id:016x}",
            "round": 1,
            "hash": state.public.hash(SPEC.run_id),
        }
    assert len(list(tmp_path.glob("state-*-1-*.bin"))) == 1


def test_a_client_that_fails_is_one_line(flower: FlowerGrid) -> None:
    fleet, server = Fleet(StockGrid(flower, NUM_SLOTS)), Server.of(SPEC)
    slots(fleet)
    flower.broken = {899}  # slot 1
    answers = ask(fleet, "query", server.tasks(server.start(), [0, 1]))
    assert answers[0].content is not None
    assert answers[0].content.ack is not None
    assert answers[1].content is not None
    assert answers[1].content.error is not None
    assert answers[1].content.error.text == "Flower: out of memory"
    entries = {(e.slot, e.direction): e for e in fleet.close_round(0)}
    assert (1, "up") not in entries  # nothing came from it


def test_a_client_without_its_files_asks_for_the_spec(flower: FlowerGrid, tmp_path: Path) -> None:
    fleet, server = Fleet(StockGrid(flower, NUM_SLOTS)), Server.of(SPEC)
    slots(fleet)
    state = server.start()
    ask(fleet, "query", server.tasks(state, [0]))
    for path in tmp_path.glob("*.bin"):
        path.unlink()
    (answer,) = ask(fleet, "train", server.tasks(server.seen(state, 0), [0])).values()
    assert answer.content is not None
    assert answer.content.error is not None
    assert "no spec of this run" in answer.content.error.text


@pytest.mark.parametrize("other", [(1, NUM_SLOTS + 1), (0, NUM_SLOTS), (NUM_SLOTS, NUM_SLOTS)])
def test_a_node_that_is_no_client_of_this_run_is_refused(
    other: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(StockGrid(FlowerGrid(tmp_path, {5: (0, NUM_SLOTS), 6: other}), NUM_SLOTS))
    assert slots(fleet) == [0]
    assert "refused node 6" in caplog.text
    assert slots(fleet) == [0]


def test_a_supernode_that_was_started_again_takes_its_place(flower: FlowerGrid) -> None:
    fleet, server = Fleet(StockGrid(flower, NUM_SLOTS)), Server.of(SPEC)
    slots(fleet)
    del flower.online[900]
    assert fleet.slots() == [1, 2]
    flower.join(77, 0, NUM_SLOTS)
    assert slots(fleet) == [0, 1, 2]
    (answer,) = ask(fleet, "query", server.tasks(server.start(), [0])).values()
    assert answer.slot == 0
    assert answer.content is not None
    assert answer.content.ack is not None


def test_an_engine_that_has_ended_is_waited_for_no_longer(flower: FlowerGrid) -> None:
    over = threading.Event()
    fleet = Fleet(StockGrid(flower, NUM_SLOTS, over))
    slots(fleet)
    over.set()
    with pytest.raises(NetworkError, match="Flower's engine has ended"):
        fleet.slots()
    tasks = Server.of(SPEC).tasks(Server.of(SPEC).start(), [0])
    with pytest.raises(NetworkError, match="Flower's engine has ended"):
        ask(fleet, "query", tasks)


def test_the_run_config_in_the_repository_is_what_the_settings_are() -> None:
    """Every option is there, by its name and with its default, but those that another command has."""
    app = tomllib.loads(APP.read_text())["tool"]["flwr"]["app"]
    config = app["config"]
    assert {key.replace("-", "_") for key in config} == {*StockSettings.model_fields, "device", "store"} - {
        "account",
        "cohort_batch",
        "drop_out",
        "engine",
        "resume",
        "workers",
    }
    # Those that say "" ask for the default, and one thread is what processes that share a machine want.
    assert _settings(config).model_dump() == _settings({"threads": 1}).model_dump()
    for reference in app["components"].values():
        module, _, name = reference.partition(":")
        assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"rounds": 0},
            "wrong value of option rounds: got 0; wanted greater than or equal to 1; in run config",
        ),
        ({"epoch": 1}, "unknown key 'epoch', did you mean epochs?: in run config"),
        ({"resume": True}, "run config with engine, resume or drop-out: wanted none"),
        ({"min-clients": 3}, "clients: got 2; wanted at least --min-clients, 3"),
    ],
)
def test_a_wrong_run_config_is_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _settings(config)
    assert message in str(caught.value)


def test_without_ray_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    folder = tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["pemn-server", "simulate", "--engine", "ray", "--run-dir", str(folder)])
    assert main() == ConfigError.exit_code == 2
    assert capsys.readouterr().err.splitlines() == [
        "pemn-server: error: engine: got ray, and no module ray; wanted pip install 'pemn[simulation]'"
    ]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("option", "why"),
    [
        (["--resume"], "got ray with --resume; wanted inprocess: on Ray no checkpoint is kept"),
        (["--workers", "2"], "got ray with --workers; wanted inprocess: on Ray actors"),
        (["--cohort-batch", "2"], "got ray with --cohort-batch; wanted inprocess: on Ray each client"),
        (
            ["--account", "estimate"],
            "got ray with --account estimate; wanted inprocess: on Ray every message",
        ),
    ],
)
def test_what_ray_cannot_do_is_refused(
    option: list[str], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pemn-server", "simulate", "--engine", "ray", *option])
    assert main() == ConfigError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
