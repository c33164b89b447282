"""The ServerApp: plan, federation and results in one piece, on whichever grid it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pemn.federation.defence import Defence
from pemn_server.flower import Fleet
from pemn_server.log import Log
from pemn_server.plan import Plan
from pemn_server.progress import Progress, size, times_fewer
from pemn_server.record import Record
from pemn_server.results import write_results
from pemn_server.run import Federation
from pemn_server.settings import RunOptions
from pemn_server.status import RunStatus


def run_federation(
    options: RunOptions,
    folder: Path,
    plan: Plan,
    fleet: Fleet,
    log: Log,
    record: Record,
    *,
    round_timeout_s: float | None = None,
    wait_timeout_s: float | None = None,
    status: RunStatus | None = None,
) -> None:
    """Runs a federation to its results.

    Args:
        options: What a person has set.
        folder: Where the results go; it exists.
        plan: Made from them.
        fleet: The clients.
        log: For progress and results.
        record: What is kept of the run; the fleet's ledger is what an earlier process has left of it.
        round_timeout_s: When a round goes on without the votes that are missing; None: never.
        wait_timeout_s: How long to wait for clients that are missing; None: for ever.
        status: Where is noted how far the run is.
    """
    with Progress(log, status) as progress:
        federation = Federation(
            plan.spec,
            fleet,
            num_rounds=options.rounds,
            cohort=options.cohort,
            over_select=options.over_select,
            defence=Defence(options.defence),
            min_clients=options.min_clients,
            round_timeout_s=round_timeout_s,
            wait_timeout_s=wait_timeout_s,
            accuracy=plan.accuracy,
            progress=progress,
            record=record,
        )
        ended = federation.run()
        progress.step("writing the results")
        summary = write_results(folder, options, plan.spec, ended, fleet.ledger, fleet.wire_source)
    for line in describe(summary):
        log.say(line)
    log.say(f"results in {folder}/")


def describe(summary: dict[str, Any]) -> list[str]:
    """Returns a summary as a few lines for a person."""
    bits, models = summary["bits_per_parameter"], summary["model_bytes"]
    how = {
        "socket": "on the wire",
        "modelled": "on the wire (modelled)",
        "estimated": "on the wire (modelled, of estimated messages)",
        "framed": "framed (no count of the wire here)",
    }
    total = summary["fedavg_bytes"] / summary["saving"]
    wire = "" if bits["uplink"] is None else f", on the wire {bits['uplink']:.3f} and {bits['downlink']:.3f}"
    forms = {"pemn": ".pemn", "onnx_packed": "packed ONNX", "onnx_dense": "dense ONNX"}
    return [
        f"test accuracy {summary['accuracy']:.4f} after {summary['num_rounds']} rounds",
        f"{size(total)} {how[summary['wire_source']]}: {times_fewer(summary['saving'])}"
        f" ({size(summary['fedavg_bytes'])})",
        f"bits a weight and client-round, up and down: payload {bits['uplink_payload']:.3f} and "
        f"{bits['downlink_payload']:.3f}{wire}",
        "model: "
        + ", ".join(
            f"{size(models[key])} as {form}" for key, form in forms.items() if models[key] is not None
        ),
        f"sha256 of the weights: {summary['weights_sha256']}",
    ]
