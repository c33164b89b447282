"""What a comparison leaves: tables for machines and people, figures, and one page with all of it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pemn.files import REPORT_NAME
from pemn.report import html
from pemn.report.comparison import Row, Table
from pemn.report.comparison_plots import PLOTS, Styles, front, panels, settings_of, styles_of
from pemn.report.figures import to_png, to_svg
from pemn.report.plots import embed, format_bytes

CSV_NAME, ROUNDS_NAME, TABLE_NAME = "comparison.csv", "rounds.csv", "comparison.md"

_OF_RUN = ("label", "method", "dataset", "num_images", "partition", "num_clients", "model", "num_params")
_TITLES = ("accuracy", "bits up", "bits down", "moved", "fewer", "to target", "fewer to target", "model")


def files(title: str, found: Sequence[Table]) -> dict[str, bytes]:
    """Returns the files of a comparison by their names.

    Args:
        title: For people.
        found: At least one table.
    """
    styles = styles_of([row.label for table in found for row in table.rows])
    made = {
        CSV_NAME: _csv(_runs(found)),
        ROUNDS_NAME: _csv(_rounds(found)),
        TABLE_NAME: _markdown(title, found).encode(),
        REPORT_NAME: _page(title, found, styles).encode(),
    }
    for number, of_setting in enumerate(settings_of(found), 1):
        drawn = {f"{number}-{slug(table.model)}": panels(table, styles) for table in of_setting}
        if len(of_setting) > 1:
            drawn[f"{number}-front"] = front(of_setting, styles)
        for name, figure in drawn.items():
            made |= {f"{name}.png": to_png(figure), f"{name}.svg": to_svg(figure)}
    return made


def _runs(found: Iterable[Table]) -> Iterator[dict[str, Any]]:
    """Yields a line a run."""
    for table in found:
        for row in table.rows:
            for run in row.runs:
                bits = run.summary["bits_per_parameter"]
                yield {
                    **{name: run.summary[name] for name in _OF_RUN},
                    "clients_a_round": table.setting.client_rounds,
                    "rounds": table.setting.num_rounds,
                    "epochs": table.setting.epochs,
                    "seed": run.summary["seed"],
                    "accuracy": round(run.accuracy, 6),
                    **{f"{way}_bits": _rounded(bits[way]) for way in ("uplink", "downlink")},
                    **{
                        f"{way}_payload_bits": _rounded(bits[f"{way}_payload"])
                        for way in ("uplink", "downlink")
                    },
                    "wire_source": run.summary["wire_source"],
                    "bytes": run.num_bytes,
                    "target": round(table.target, 6),
                    "bytes_to_target": run.bytes_to(table.target),
                    "model_bytes": run.model_bytes,
                    "seconds": round(run.summary["seconds"], 1),
                    "weights_sha256": run.summary["weights_sha256"],
                }


def _rounds(found: Iterable[Table]) -> Iterator[dict[str, Any]]:
    """Yields a line a run and training round."""
    for table in found:
        for row in table.rows:
            for run in row.runs:
                for round_, (accuracy, so_far) in enumerate(zip(run.accuracies, run.so_far, strict=True), 1):
                    costs = run.rounds[round_]
                    yield {
                        **{name: run.summary[name] for name in ("label", "partition", "model", "seed")},
                        "round": round_,
                        "accuracy": round(accuracy, 6),
                        "up_bytes": costs.up.moved,
                        "down_bytes": costs.down.moved,
                        "bytes_so_far": so_far,
                    }


def _rounded(bits: float | None) -> float | None:
    return None if bits is None else round(bits, 6)


def _csv(lines: Iterable[dict[str, Any]]) -> bytes:
    every, text = list(lines), io.StringIO()
    writer = csv.DictWriter(text, list(every[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(every)
    return text.getvalue().encode()


def _cells(table: Table, row: Row) -> tuple[str, ...]:
    spread = "" if row.deviation is None else f" ± {100 * row.deviation:.1f}"
    needed = row.bytes_to(table.target)
    return (
        f"{100 * row.accuracy:.1f}{spread}",
        f"{row.bits('up'):.3f}",
        f"{row.bits('down'):.3f}",
        format_bytes(row.num_bytes),
        _times(table.times_fewer(row)),
        "not reached" if needed is None else format_bytes(needed),
        _times(table.times_fewer_to_target(row)),
        format_bytes(row.model_bytes),
    )


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3g} x"


def _note(table: Table) -> str:
    seeds = max(len(row.runs) for row in table.rows)
    return (
        f"{table.model}; {table.setting}; {seeds} seed{'s' if seeds > 1 else ''}. Accuracy in percent; bits a weight "
        f"and client-round as moved; target {100 * table.target:.1f} %."
    )


def _markdown(title: str, found: Iterable[Table]) -> str:
    lines = [f"# {title}", ""]
    for table in found:
        lines += [_note(table), "", f"| method | {' | '.join(_TITLES)} |", "|---" * (len(_TITLES) + 1) + "|"]
        lines += [f"| {row.label} | {' | '.join(_cells(table, row))} |" for row in table.rows]
        lines.append("")
    return "\n".join(lines)


def _page(title: str, found: Sequence[Table], styles: Styles) -> str:
    parts = []
    for number, of_setting in enumerate(settings_of(found), 1):
        for place, table in enumerate(of_setting, 1):
            rows = [(row.label, *_cells(table, row)) for row in table.rows]
            name = f"{table.model}, {table.setting.partition}"
            parts.append(html.section(name, _note(table), html.table(("method", *_TITLES), rows)))
            drawn = (
                html.figure(
                    plot.title,
                    plot.note,
                    embed(plot.figure(table, styles), f"{plot.name}-{number}-{place}", plot.title),
                )
                for plot in PLOTS
            )
            parts.append(html.plots(drawn))
        if len(of_setting) > 1:
            svg = embed(front(of_setting, styles), f"front-{number}", "Final accuracy by bytes")
            note = "Every method at every network; up and to the left is better."
            parts.append(html.plots([html.figure("Accuracy by all bytes of a run", note, svg)]))
    intro = '<p class="faint">Bytes of all clients, both ways. Runs that differ in their seeds alone are one row.</p>'
    return html.document(title, "\n".join([intro, *parts]))


def slug(text: str) -> str:
    """Returns a text as the name of a file or folder."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "run"
