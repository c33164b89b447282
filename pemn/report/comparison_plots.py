"""The plots of a comparison: accuracy by round and by bytes, what each method sends, and what it leaves."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeAlias

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pemn.report.comparison import Row, Table
from pemn.report.plots import COLOURS, STYLE, format_bytes, label_accuracy, label_bytes, start

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SERIES = ("up", "down", "reference", "down-overhead", "other", "up-overhead", "more")
_DASHES = ("-", "--", ":")
_MARKERS = "osD^vPX*"
_PANEL_INCHES = (4.4, 3.3)

Styles: TypeAlias = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Plot:
    """A drawing of a table.

    Attributes:
        name: For files and pages.
        title: For people.
        note: What they need to know to read it.
        draw: Draws it.
    """

    name: str
    title: str
    note: str
    draw: Callable[[Axes, Table, Styles], None]

    def figure(self, table: Table, styles: Styles) -> Figure:
        """Returns the drawing by itself."""
        with rc_context(STYLE):
            figure, axes = start()
            self.draw(axes, table, styles)
            figure.legend(loc="outside lower center", ncols=2)
        return figure


def styles_of(labels: Sequence[str]) -> Styles:
    """Returns a colour and a dash for each label, the same in all plots."""
    looks = [(colour, dash) for dash in _DASHES for colour in _SERIES]
    return {
        label: {"color": COLOURS[colour], "linestyle": dash}
        for label, (colour, dash) in zip(dict.fromkeys(labels), cycle(looks), strict=False)
    }


def panels(table: Table, styles: Styles) -> Figure:
    """Returns all plots of a table in one figure."""
    columns, rows = 3, -(-len(PLOTS) // 3)
    with rc_context(STYLE):
        figure = Figure(figsize=(columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]))
        for place, plot in enumerate(PLOTS, 1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(plot.title, fontsize=10)
            plot.draw(axes, table, styles)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.suptitle(f"{table.model}: {table.setting}", fontsize=11)
    return figure


def front(of_setting: Sequence[Table], styles: Styles) -> Figure:
    """Returns final accuracy against all bytes, each method at every network that it was run with.

    Args:
        of_setting: Tables of one setting and different networks.
        styles: Of the labels.
    """
    points: dict[str, list[tuple[float, float, str]]] = {}
    for table in of_setting:
        for row in table.rows:
            points.setdefault(row.label, []).append((row.num_bytes, row.accuracy, row.model))
    # Names beside the points would hide each other.
    networks = dict.fromkeys(row.model for table in of_setting for row in table.rows)
    markers = dict(zip(networks, cycle(_MARKERS), strict=False))
    with rc_context(STYLE):
        figure, axes = start()
        for label, found in points.items():
            found.sort()
            x, y, _ = zip(*found, strict=True)
            axes.plot(x, y, linewidth=1.5, label=label, **styles[label])
            for num_bytes, accuracy, model in found:
                axes.plot(num_bytes, accuracy, marker=markers[model], markersize=5, **styles[label])
        for model, marker in markers.items():
            axes.plot([], [], marker=marker, linestyle="", color=COLOURS["ink"], label=model)
        label_bytes(axes)
        axes.set_xlabel("bytes of the whole run, both ways, all clients")
        label_accuracy(axes)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _by_round(axes: Axes, table: Table, styles: Styles) -> None:
    rounds = range(1, table.setting.num_rounds + 1)
    for row in table.rows:
        for run in row.runs:
            axes.plot(rounds, run.accuracies, linewidth=0.6, alpha=0.35, **styles[row.label])
        axes.plot(rounds, _means(row, lambda run: run.accuracies), label=row.label, **styles[row.label])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("round")
    label_accuracy(axes)


def _by_bytes(axes: Axes, table: Table, styles: Styles) -> None:
    for row in table.rows:
        x, y = _means(row, lambda run: run.so_far), _means(row, lambda run: run.accuracies)
        axes.plot(x, y, label=row.label, **styles[row.label])
    axes.axhline(table.target, color=COLOURS["ink"], linestyle=":", linewidth=1)
    label_bytes(axes)
    axes.set_xlabel("bytes so far, both ways, all clients")
    label_accuracy(axes)


def _bits(direction: str) -> Callable[[Axes, Table, Styles], None]:
    def draw(axes: Axes, table: Table, styles: Styles) -> None:
        rounds = range(1, table.setting.num_rounds + 1)
        for row in table.rows:
            bits = _means(row, lambda run: run.bits(direction))
            axes.plot(rounds, bits, label=row.label, **styles[row.label])
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("round")
        axes.set_ylabel(f"bits a weight {direction}")

    return draw


def _bars(size: Callable[[Table, Row], float | None]) -> Callable[[Axes, Table, Styles], None]:
    def draw(axes: Axes, table: Table, styles: Styles) -> None:
        sizes = [size(table, row) for row in table.rows]
        for place, (row, num_bytes) in enumerate(zip(table.rows, sizes, strict=True)):
            axes.barh(place, num_bytes or 0, color=styles[row.label]["color"], label=row.label)
            if num_bytes is None:  # a logarithmic axis has no place for it
                axes.text(0.02, place, "not reached", transform=axes.get_yaxis_transform(), va="center")
            else:
                told = format_bytes(num_bytes)
                axes.annotate(told, (num_bytes, place), (3, 0), textcoords="offset points", va="center")
        known = [num_bytes for num_bytes in sizes if num_bytes]
        if known:
            axes.set_xscale("log")
            axes.set_xlim(min(known) / 3, max(known) * 12)
            label_bytes(axes)
        axes.set_yticks([])
        axes.invert_yaxis()

    return draw


def _means(row: Row, values: Callable[[Any], Sequence[float]]) -> list[float]:
    return [statistics.fmean(of_seeds) for of_seeds in zip(*map(values, row.runs), strict=True)]


PLOTS = (
    Plot("accuracy-by-round", "Accuracy by round", "Mean of the seeds; each seed thin.", _by_round),
    Plot("accuracy-by-bytes", "Accuracy by bytes", "Dotted: the accuracy to reach.", _by_bytes),
    Plot("bytes-to-target", "Bytes to reach it", "", _bars(lambda table, row: row.bytes_to(table.target))),
    Plot("bits-up", "Bits a weight up", "Of each client and round, as moved.", _bits("up")),
    Plot("bits-down", "Bits a weight down", "Of each client and round, as moved.", _bits("down")),
    Plot("model-bytes", "Final model", "The smallest of its files.", _bars(lambda _, row: row.model_bytes)),
)
"""Of every table."""


def settings_of(found: Sequence[Table]) -> Iterator[list[Table]]:
    """Yields the tables of each setting."""
    for setting in dict.fromkeys(table.setting for table in found):
        yield [table for table in found if table.setting == setting]
