"""`pemn-server simulate`: every method, some of the clients a round, and runs that were stopped."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from pemn.artifact import Artifact
from pemn.config import resolve
from pemn.device import Model
from pemn.errors import ConfigError, FileError
from pemn.methods import Server
from pemn.rebuild import weights_sha256
from pemn.training.cohort import train_cohort
from pemn.training.local import LocalTrainer
from pemn.wire.messages import Metrics
from pemn.wire.spec import METHODS, Spec
from pemn_client.store import MemoryStore
from pemn_server import checkpoint
from pemn_server.log import Log
from pemn_server.outcome import Outcome
from pemn_server.plan import make_plan
from pemn_server.settings import RunOptions, SimulateSettings
from pemn_server.simulation import simulate

SMALL = [
    *("--clients", "5", "--participation", "0.5", "--partition", "dirichlet:0.5", "--model", "mlp-8"),
    *("--rounds", "4", "--epochs", "1", "--seed", "3", "--threads", "1"),
]


def settings_of(folder: Path, *options: str) -> SimulateSettings:
    arguments = [*SMALL, "--run-dir", str(folder), *options]
    return resolve(SimulateSettings, arguments, prog="simulate", env_prefix="NONE_").settings


def run(folder: Path, *options: str) -> dict[str, Any]:
    simulate(settings_of(folder, *options), folder, Log(Console(file=io.StringIO(), width=200)))
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


BY_ROUND = (
    *("--step", "0.5,3:0.125", "--server-step", "2,2:1,4:0.5", "--learning-rate", "0.3,3:0.1"),
    *("--averaging", "3", "--tie", "2", "--logit-adjustment", "0.5", "--images", "300"),
)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        *((method, ()) for method in METHODS),
        ("mask", ("--cohort-batch", "2")),
        ("stc", ("--cohort-batch", "2")),
        ("mask", BY_ROUND),
        ("mask", ("--averaging", "1")),
        ("fedavg", ("--learning-rate", "0.1,3:0.05")),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    method: str, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--method", method, *more)
    whole = run(tmp_path / "whole", *options)
    assert whole["method"] == method
    assert whole["client_rounds"] == 4 * 2  # a half of five is two
    save = checkpoint.save

    def stop(path: Path, settings: RunOptions, server: Any, kept: checkpoint.Checkpoint) -> None:
        if kept.outcome.state.public.round == 3:
            raise KeyboardInterrupt  # the ledger has the round already
        save(path, settings, server, kept)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", *options)
    parts = run(tmp_path / "parts", *options, "--resume")
    for summary in (whole, parts):
        del summary["seconds"], summary["state_hash"]  # that is of the run's id too
    assert parts == whole
    ledgers = [(tmp_path / name / "ledger.jsonl").read_text() for name in ("whole", "parts")]
    assert ledgers[0] == ledgers[1]


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do they where a run that was stopped goes on."""
    alone = run(tmp_path / "alone")
    save = checkpoint.save

    def stop(path: Path, settings: RunOptions, server: Any, kept: checkpoint.Checkpoint) -> None:
        save(path, settings, server, kept)
        if kept.outcome.state.public.round == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "many", "--workers", "2")
    many = run(tmp_path / "many", "--resume")
    for summary in (alone, many):
        del summary["seconds"], summary["state_hash"]  # that is of the run's id too
    assert many == alone
    ledgers = [(tmp_path / name / "ledger.jsonl").read_text() for name in ("alone", "many")]
    assert ledgers[0] == ledgers[1]


@pytest.mark.parametrize("more", [BY_ROUND, ("--averaging", "1"), ("--averaging", "4", "--step", "0.3")])
def test_a_run_leaves_the_released_model(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What every round is judged by, and what the files and all clients have in the end."""
    outcomes: list[Outcome] = []
    specs: list[Spec] = []
    stores: list[MemoryStore] = []
    save, make_store = checkpoint.save, MemoryStore.__init__

    def keep(path: Path, settings: RunOptions, server: Any, kept: checkpoint.Checkpoint) -> None:
        outcomes.append(replace(kept.outcome, accuracies=list(kept.outcome.accuracies)))
        specs.append(kept.spec)
        save(path, settings, server, kept)

    def remember(self: MemoryStore, *args: Any) -> None:
        make_store(self, *args)
        stores.append(self)

    monkeypatch.setattr(checkpoint, "save", keep)
    monkeypatch.setattr(MemoryStore, "__init__", remember)
    more = (*more, "--rounds", "7")  # in the first four an average is p_hat
    summary = run(tmp_path, *more)
    spec, method = specs[-1], Server.of(specs[-1]).method
    assert spec.num_rounds == 7
    plan = make_plan(settings_of(tmp_path, *more))
    moved = False
    for outcome in outcomes:
        state = outcome.state
        released = method.released(state.public, state.private)
        mask = method.mask(released)
        assert mask is not None
        assert np.array_equal(mask.bits(), state.private[-1] > 1 << 23)
        assert plan.accuracy(method.weights(released)) == outcome.accuracies[-1]
        moved |= not np.array_equal(released.values, state.public.values)
    assert moved == (spec.mask.window > 1)
    last = outcomes[-1].state.public
    assert last.round == 7
    assert np.array_equal(last.values, released.values)
    assert summary["accuracy"] == summary["accuracy_by_round"][-1] == plan.accuracy(method.weights(last))
    assert summary["weights_sha256"] == weights_sha256(method.weights(last)).hex()
    artifact = Artifact.from_bytes((tmp_path / "model.pemn").read_bytes())
    assert artifact.model == spec.model
    assert np.array_equal(artifact.weights(), method.weights(last))
    images = np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8), np.uint8)
    dense, packed = (Model.load(tmp_path / name).predict(images) for name in ("model.pemn", "model.onnx"))
    assert np.array_equal(dense, packed)
    assert len(stores) == 5
    for store in stores:
        loaded = store.load()
        assert loaded is not None
        assert loaded[1] is not None
        assert np.array_equal(loaded[1].values, last.values)
    assert summary["num_images"] == spec.data.num_images == (300 if "--images" in more else None)


def test_only_the_images_that_are_dealt_out_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Outcome] = []
    monkeypatch.setattr(checkpoint, "save", lambda *args: outcomes.append(args[-1].outcome))
    summary = run(tmp_path, "--images", "60", "--participation", "1", "--partition", "iid", "--rounds", "1")
    assert summary["num_images"] == 60
    assert outcomes[-1].images == dict.fromkeys(range(5), 12)


def test_counts_come_to_the_published_method(tmp_path: Path) -> None:
    one, two = (run(tmp_path / method, "--method", method) for method in ("fedpm", "fedpm-counts"))
    assert one["weights_sha256"] == two["weights_sha256"]
    assert one["accuracy_by_round"] == two["accuracy_by_round"]
    assert one["bits_per_parameter"]["downlink_payload"] > 2 * two["bits_per_parameter"]["downlink_payload"]


@pytest.mark.parametrize(("method", "tie"), [("mask", "1"), ("mask", "2"), ("fedpm", "1"), ("fedavg", "1")])
def test_clients_that_train_at_once_come_to_the_same(
    method: str, tie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def count(trainers: Sequence[LocalTrainer], *args: Any) -> list[tuple[NDArray[Any], Metrics]]:
        sizes.append(len(trainers))
        return train_cohort(trainers, *args)

    monkeypatch.setattr("pemn_client.cohorts.train_cohort", count)
    options = (
        *("--method", method, "--tie", tie, "--participation", "1", "--partition", "dirichlet:1"),
        *("--model", "mlp-64", "--rounds", "3", "--epochs", "3"),
    )
    alone = run(tmp_path / "alone", *options)
    assert sizes == []
    together = run(tmp_path / "together", *options, "--cohort-batch", "3")
    assert sizes == [3, 2] * 3  # five clients, three rounds
    assert np.allclose(alone["accuracy_by_round"], together["accuracy_by_round"], atol=0.01)
    assert together["accuracy"] > 0.5


def test_a_network_that_cannot_train_at_once_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ModuleType("pemn_test_dropout")
    own.__dict__["make"] = lambda shape, classes: nn.Sequential(
        nn.Flatten(), nn.Dropout(), nn.Linear(math.prod(shape), classes, bias=False)
    )
    monkeypatch.setitem(sys.modules, own.__name__, own)
    options = ("--model", "pemn_test_dropout:make", "--rounds", "1")
    with pytest.raises(ConfigError, match="cannot train clients at once"):
        run(tmp_path / "together", *options, "--cohort-batch", "2")
    assert not (tmp_path / "together").exists()
    assert run(tmp_path / "alone", *options)["num_rounds"] == 1


def test_only_the_drawn_are_asked(tmp_path: Path) -> None:
    run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    asked = [
        {line["slot"] for line in lines if line["round"] == round_ and line["messages"]}
        for round_ in range(6)
    ]
    assert asked[0] == set()
    assert [len(slots) for slots in asked[1:5]] == [2] * 4
    assert len({frozenset(slots) for slots in asked[1:5]}) > 1
    assert asked[5] == set(range(5))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (["--epochs", "2"], ConfigError, "resuming with another option: got 2; wanted 1; in --epochs"),
        (
            ["--cohort-batch", "2"],
            ConfigError,
            "resuming with another option: got 2; wanted 1; in --cohort-batch",
        ),
        (["--method", "stc"], ConfigError, "resuming with another option: got stc; wanted mask; in --method"),
    ],
)
def test_a_run_goes_on_as_it_was_begun(
    options: list[str], error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match="no checkpoint to go on from"):
        run(tmp_path / "new", "--resume")
    run(tmp_path)
    with pytest.raises(error, match=says):
        run(tmp_path, "--resume", *options)


def test_a_finished_run_comes_to_the_same_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    with pytest.raises(ConfigError, match="results of another run"):
        run(tmp_path)
    again = run(tmp_path, "--resume")
    assert first["weights_sha256"] == again["weights_sha256"]
    assert first["bytes"] == again["bytes"]


def test_what_is_left_of_a_run_is_checked(tmp_path: Path) -> None:
    run(tmp_path)
    path = tmp_path / checkpoint.CHECKPOINT_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(FileError, match="damaged checkpoint"):
        run(tmp_path, "--resume")
    path.write_bytes(whole)
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(FileError, match="ledger has lost lines: got 3"):
        run(tmp_path, "--resume")


def test_nothing_is_written_that_says_less_than_an_outcome() -> None:
    """A field that is added to it must be kept, too."""
    kept = {"state", "accuracies", "num_votes", "abandoned_rounds", "images", "seconds"}
    assert set(Outcome.__dataclass_fields__) == kept


@pytest.mark.parametrize("method", METHODS)
def test_estimated_messages_change_the_books_alone(method: str, tmp_path: Path) -> None:
    coded = run(tmp_path / "coded", "--method", method, "--model", "mlp-64")
    estimated = run(tmp_path / "estimated", "--method", method, "--model", "mlp-64", "--account", "estimate")
    assert (coded["wire_source"], estimated["wire_source"]) == ("modelled", "estimated")
    for name in ("accuracy_by_round", "weights_sha256", "client_rounds", "model_bytes"):
        assert estimated[name] == coded[name]
    lines = [
        [json.loads(line) for line in (tmp_path / name / "ledger.jsonl").read_text().splitlines()]
        for name in ("coded", "estimated")
    ]
    for one, other in zip(*lines, strict=True):
        assert abs(one["payload"] - other["payload"]) <= one["messages"] * 64 + 0.005 * one["payload"]
        assert {**one, "payload_by_kind": 0, "payload": 0, "framed": 0, "wire": 0} == {
            **other,
            "payload_by_kind": 0,
            "payload": 0,
            "framed": 0,
            "wire": 0,
        }


def test_nothing_is_coded_for_an_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr("pemn.methods.mask.encode_flips", refuse)
    run(tmp_path / "estimated", "--account", "estimate")
    with pytest.raises(AssertionError):
        run(tmp_path / "coded")
