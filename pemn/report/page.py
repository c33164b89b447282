"""Puts a run's figures, plots and tables on one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from pemn.report import html
from pemn.report.costs import Costs, sum_by, sum_by_kind
from pemn.report.plots import (
    format_bytes,
    plot_accuracy_by_bytes,
    plot_accuracy_by_round,
    plot_bytes_by_round,
)
from pemn.report.schema import check_ledger, check_summary

_OVERHEAD = {
    "socket": "framing + TLS",
    "modelled": "framing + TLS (modelled)",
    "estimated": "framing + TLS (modelled)",
    "framed": "framing",
}
_WIRE = {
    "socket": "on the wire, as counted by the kernel",
    "modelled": "on the wire, modelled from framed bytes",
    "estimated": "on the wire, modelled from estimates of coded messages",
    "framed": "framed; this platform does not count what is on the wire",
}
_MOST_CLIENTS = 1000


def render(
    summary: Mapping[str, Any],
    ledger: Sequence[Mapping[str, Any]],
    *,
    images_by_slot: Mapping[int, int] | None = None,
) -> str:
    """Makes the report of a run.

    Args:
        summary: Contents of `summary.json`.
        ledger: Lines of `ledger.jsonl`.
        images_by_slot: How many training images each client has, where that is known.

    Returns:
        A whole HTML document without any reference to another file or host.

    Raises:
        FileError: If the summary or the ledger is not as its schema says.
    """
    check_summary(summary)
    check_ledger(ledger)
    by_client = sum_by(ledger, "slot")
    cards = "\n".join(_cards(summary, by_client))
    parts = (
        _intro(summary),
        f'<section class="cards">\n{cards}\n</section>',
        "<h2>How it went</h2>",
        html.plots(_plots(summary, sum_by(ledger, "round"))),
        _clients(by_client, images_by_slot or {}) + _messages(sum_by_kind(ledger)),
        html.details("All figures of summary.json", html.flatten(summary)),
    )
    title = f"{summary['dataset']}, {summary['model']}: {summary['num_clients']:,} clients"
    return html.document(title, "\n".join(parts))


def _intro(summary: Mapping[str, Any]) -> str:
    run = (
        f"Method {summary['method']}, strategy {summary['strategy']}, partition {summary['partition']}; "
        f"{summary['num_params']:,} weights; rounds: {summary['num_rounds']:,}; local epochs: "
        f"{summary['epochs']:,}; took {_duration(summary['seconds'])}; PEMN {summary['pemn_version']}."
    )
    text = f'<p class="faint">{escape(run)}</p>'
    if lost := summary["abandoned_rounds"]:
        text += f"<p>{lost:,} {'rounds were' if lost > 1 else 'round was'} abandoned for want of answers.</p>"
    return text


def _cards(summary: Mapping[str, Any], by_client: Mapping[int, Costs]) -> Iterator[str]:
    bits, sizes = summary["bits_per_parameter"], summary["model_bytes"]
    counted = _WIRE[summary["wire_source"]]
    yield html.card("Test accuracy", f"{100 * summary['accuracy']:.2f} %", "of the released model")
    fedavg = format_bytes(summary["fedavg_bytes"])
    yield html.card(
        "Saving", f"{summary['saving']:,.1f} times", f"FedAvg would move {fedavg} in as many rounds"
    )
    for title, key, moved in (
        ("Sent by clients", "uplink", sum(costs.up.moved for costs in by_client.values())),
        ("Sent to clients", "downlink", sum(costs.down.moved for costs in by_client.values())),
    ):
        payload, wire = summary["bytes"][f"{key}_payload"], summary["bytes"][f"{key}_wire"]
        shown = format_bytes(moved if wire is None else wire)
        yield html.card(title, shown, f"{counted}; payload {format_bytes(payload)}")
    for title, key in (("Uplink cost", "uplink"), ("Downlink cost", "downlink")):
        wire, payload = bits[key], bits[f"{key}_payload"]
        note = "bits per weight, client and round"
        if wire is None:
            yield html.card(title, f"{payload:.3f}", f"{note}, payload")
        else:
            yield html.card(title, f"{wire:.3f}", f"{note} on the wire; payload {payload:.3f}")
    dense = sizes["onnx_dense"]
    for title, key in (("Model, .pemn", "pemn"), ("Model, packed ONNX", "onnx_packed")):
        if sizes[key] is not None:  # ordinary weights have no mask
            ratio = f"{dense / sizes[key]:,.1f} times smaller than dense" if sizes[key] else ""
            yield html.card(title, format_bytes(sizes[key]), ratio)
    yield html.card("Model, dense ONNX", format_bytes(dense), "float32 weights")
    yield (
        f'<div class="card wide">SHA-256 of the weights<br><code>{escape(summary["weights_sha256"])}</code></div>'
    )


def _plots(summary: Mapping[str, Any], rounds: Mapping[int, Costs]) -> Iterator[str]:
    accuracies: Sequence[float] = summary["accuracy_by_round"]
    fedavg_bytes: int = summary["fedavg_bytes"]
    if accuracies:
        yield html.figure(
            "Accuracy by round", "Of the shared model, after each round.", plot_accuracy_by_round(accuracies)
        )
    if accuracies and rounds:
        svg = plot_accuracy_by_bytes(accuracies, rounds, fedavg_bytes)
        yield html.figure("Accuracy by bytes", "Joining included; the axis is logarithmic.", svg)
    if rounds:
        note = ""
        if moved := sum(costs.moved for costs in rounds.values()):
            each = format_bytes(fedavg_bytes / max(1, summary["num_rounds"]))
            note = f"FedAvg: {each} a round, {fedavg_bytes / moved:,.1f} times as much."
        svg = plot_bytes_by_round(rounds, summary["num_rounds"], _OVERHEAD[summary["wire_source"]])
        yield html.figure("Bytes by round", note, svg)


def _clients(by_client: Mapping[int, Costs], images_by_slot: Mapping[int, int]) -> str:
    """Returns a table of what each client cost; of very many clients, those that cost most."""
    dearest = sorted(by_client, key=lambda slot: (-by_client[slot].moved, slot))[:_MOST_CLIENTS]
    note = "Whole run, in bytes."
    if len(dearest) < len(by_client):
        note += f" Of {len(by_client):,} clients, the {len(dearest):,} that cost most."
    columns = ["slot", "images", "updates", "up", "of it payload", "down", "of it payload"]
    rows: list[list[object]] = []
    for slot in sorted(dearest):
        costs, images = by_client[slot], images_by_slot.get(slot)
        both = [costs.up.moved, costs.up.payload, costs.down.moved, costs.down.payload]
        rows.append([slot, images, costs.num_updates, *both])
    if not images_by_slot:
        columns, rows = columns[:1] + columns[2:], [row[:1] + row[2:] for row in rows]
    return html.section("By client", note, html.table(columns, rows))


def _messages(by_kind: Mapping[str, int]) -> str:
    whole = max(1, sum(by_kind.values()))
    rows = ((kind, num_bytes, f"{100 * num_bytes / whole:.1f} %") for kind, num_bytes in by_kind.items())
    return html.section(
        "By kind of message", "Payload, whole run, in bytes.", html.table(("message", "bytes", "share"), rows)
    )


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{seconds:.1f} s"
    return (
        f"{whole // 3600} h {whole % 3600 // 60} min"
        if whole >= 3600
        else f"{whole // 60} min {whole % 60} s"
    )
