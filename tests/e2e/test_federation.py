"""Real processes, real TLS, real kills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Site
from tests.proxy import CountingProxy

ROUNDS = 6


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def proxy(site: Site) -> Iterator[CountingProxy]:
    proxy = CountingProxy(site.port)
    yield proxy
    proxy.close()


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def test_the_ledger_is_what_a_proxy_counts(site: Site, proxy: CountingProxy) -> None:
    """TLS and HTTP/2 included, the ledger and a byte-counting proxy agree within 2 %."""
    server = site.server("run", "--rounds", ROUNDS, "--seed", 3)
    clients = site.clients(port=proxy.port)
    assert server.wait() == 0, server.output
    assert [client.wait() for client in clients] == [0, 0, 0]

    ledger, summary = (
        ledger_of(site.folder / "run"),
        json.loads((site.folder / "run/summary.json").read_text()),
    )
    counted = [sum(v["wire"] for v in ledger if v["direction"] == way) for way in ("up", "down")]
    assert counted == [summary["bytes"]["uplink_wire"], summary["bytes"]["downlink_wire"]]
    for ours, theirs in zip(counted, proxy.totals(), strict=True):
        assert ours == pytest.approx(theirs, rel=0.02)
    assert summary["wire_source"] == "socket"
    assert summary["accuracy"] > 0.9


def test_a_killed_client_comes_back_with_its_seed(site: Site) -> None:
    """kill -9 of a client: it goes on from its store, and the seed does not travel again."""
    server = site.server("run", "--rounds", ROUNDS, "--seed", 3)
    clients = site.clients()
    server.wait_for(r"round 2/")
    clients[1].kill()
    clients[1] = site.client(1)
    assert server.wait() == 0, server.output
    assert [client.wait() for client in clients] == [0, 0, 0]
    assert "up again from the store" in clients[1].output

    ledger = ledger_of(site.folder / "run")
    with_spec = [(v["slot"], v["round"]) for v in ledger if "spec" in v["payload_by_kind"]]
    assert sorted(with_spec) == [(0, 0), (1, 0), (2, 0)]
    summary = json.loads((site.folder / "run/summary.json").read_text())
    assert summary["client_rounds"] == 3 * ROUNDS


def test_a_client_that_lost_its_store_gets_everything_again(site: Site) -> None:
    server = site.server("run", "--rounds", ROUNDS, "--seed", 3)
    clients = site.clients()
    server.wait_for(r"round 2/")
    clients[1].kill()
    for name in ("spec.bin", "state.bin"):
        (site.folder / "store-1" / name).unlink()
    clients[1] = site.client(1)
    assert server.wait() == 0, server.output
    assert [client.wait() for client in clients] == [0, 0, 0]
    specs = [v["slot"] for v in ledger_of(site.folder / "run") if "spec" in v["payload_by_kind"]]
    assert sorted(specs) == [0, 1, 1, 2]


def test_clients_wait_for_a_server_that_went_away(site: Site) -> None:
    """The clients outlive a server and join the run of the next one."""
    first = site.server("first", "--rounds", 500, "--seed", 3)
    clients = site.clients()
    first.wait_for(r"round\s+2/")
    first.kill()
    second = site.server("second", "--rounds", 2, "--seed", 4)
    assert second.wait() == 0, second.output
    assert [client.wait() for client in clients] == [0, 0, 0]
    assert "the server is away" in clients[0].output


def test_a_client_with_other_data_leaves_and_says_why(site: Site) -> None:
    server = site.server("run", "--rounds", 2, "--seed", 3)
    wrong = site.client(0, "--dataset", "cifar10")
    others = [site.client(slot) for slot in (1, 2)]
    assert wrong.wait() == 6
    assert "data set: got cifar10; wanted digits" in wrong.output
    server.wait_for("client 0: .*data set")
    right = site.client(0, "--dataset", "digits")
    assert server.wait() == 0, server.output
    assert [client.wait() for client in (right, *others)] == [0, 0, 0]
