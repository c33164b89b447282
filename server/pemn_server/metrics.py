"""What Prometheus reads of a run: `RunStatus`, under names of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from pemn.link.address import Address, check_free
from pemn_server.status import RunStatus


class RunCollector(Collector):
    """Asks for the status whenever somebody reads the metrics.

    Args:
        status: Of the run.
    """

    def __init__(self, status: RunStatus) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Yields every metric; docs/operate.md lists them."""
        now = self._status.snapshot()
        yield InfoMetricFamily("pemn_run", "The run.", value={"run_id": now["run_id"]})
        for name, text, value in (
            ("pemn_rounds", "Rounds of the run.", now["num_rounds"]),
            ("pemn_round", "The last round that was closed.", now["round"]),
            ("pemn_clients", "Clients that are here.", len(now["clients"])),
            ("pemn_asked_clients", "Clients that were asked in the round that goes on.", now["asked"]),
            ("pemn_votes", "Votes that have come in the round that goes on.", now["votes"]),
        ):
            yield GaugeMetricFamily(name, text, value)
        if now["accuracy"] is not None:
            text = "On the test split after the last round, 0 .. 1."
            yield GaugeMetricFamily("pemn_accuracy_ratio", text, now["accuracy"])
        wire = CounterMetricFamily(
            "pemn_wire_bytes", "On the wire up to the last round, since the run began.", labels=["direction"]
        )
        wire.add_metric(["up"], now["uplink_bytes"])
        wire.add_metric(["down"], now["downlink_bytes"])
        yield wire
        spent = CounterMetricFamily(
            "pemn_work_seconds", "Time that the server has spent, since it began.", labels=["work"]
        )
        for work, seconds in now["spent"].items():
            spent.add_metric([work], seconds)
        yield spent
        refused = CounterMetricFamily(
            "pemn_refused", "Clients and messages refused, since the server began.", labels=["cause"]
        )
        for cause, count in now["refused"].items():
            refused.add_metric([cause], count)
        yield refused


@contextlib.contextmanager
def metered(listen: str, status: RunStatus) -> Iterator[Address]:
    """Serves the metrics of a run over HTTP as long as the block lasts; gives the address.

    Args:
        listen: HOST:PORT; port 0 picks a free one.
        status: Of the run.

    Raises:
        ConfigError: If `listen` is no address.
        NetworkError: If it cannot be listened on.
    """
    address = Address.parse(listen)
    check_free(address)
    registry = CollectorRegistry()
    registry.register(RunCollector(status))
    server, thread = start_http_server(address.port, address.host, registry)
    try:
        yield address._replace(port=server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
