"""What Prometheus reads, and what the dashboard asks it for."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pemn.errors import ConfigError, NetworkError, NotEnrolled
from pemn_server.metrics import metered
from pemn_server.status import RunStatus

ROOT = Path(__file__).parents[3]


def read(address: object) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    text = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def status() -> RunStatus:
    status = RunStatus(0xAB, 20, lambda: [0, 2, 5])
    status.put(round=7, votes=2, asked=3, accuracy=0.75, uplink_bytes=1000, downlink_bytes=2000)
    status.refused(NotEnrolled("who?"))
    status.refused(NotEnrolled("who?"))
    status.spent("decode", 1.5)
    status.spent("decode", 0.25)
    return status


def test_the_metrics_are_the_status(status: RunStatus) -> None:
    with metered("127.0.0.1:0", status) as address:
        assert read(address) == {
            ("pemn_run_info", "00000000000000ab"): 1,
            ("pemn_rounds",): 20,
            ("pemn_round",): 7,
            ("pemn_clients",): 3,
            ("pemn_asked_clients",): 3,
            ("pemn_votes",): 2,
            ("pemn_accuracy_ratio",): 0.75,
            ("pemn_wire_bytes_total", "up"): 1000,
            ("pemn_wire_bytes_total", "down"): 2000,
            ("pemn_work_seconds_total", "decode"): 1.75,
            ("pemn_work_seconds_total", "tally"): 0,
            ("pemn_refused_total", "NotEnrolled"): 2,
        }
        status.put(round=8, accuracy=None)
        after = read(address)
        assert after["pemn_round",] == 8
        assert ("pemn_accuracy_ratio",) not in after


def test_an_address_that_cannot_be_had(status: RunStatus) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(NetworkError, match="cannot listen"),
        metered(f"127.0.0.1:{taken.getsockname()[1]}", status),
    ):
        pass
    with pytest.raises(ConfigError, match="address"), metered("here", status):
        pass


def test_the_dashboard_and_the_document_have_the_metrics_that_there_are(status: RunStatus) -> None:
    with metered("127.0.0.1:0", status) as address:
        names = {name for name, *_ in read(address)}
    dashboard = json.loads((ROOT / "deploy/grafana/pemn.json").read_text())
    asked = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    assert {name for expr in asked for name in re.findall(r"pemn_\w+", expr)} == names - {"pemn_run_info"}
    assert "pemn_run_info" in json.dumps(dashboard["templating"])
    document = (ROOT / "docs/operate.md").read_text().partition("## Metrics")[2].partition("\n## ")[0]
    assert set(re.findall(r"pemn_\w+", document)) == names
