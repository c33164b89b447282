"""The plots of a run's page, as SVG that takes its colours from the page.

Colours are those of Okabe and Ito and a violet, told apart by people with any kind of colour blindness; each is
written to the SVG as the CSS variable of the same name, so that one drawing suits a dark and a light page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pemn.errors import ConfigError
from pemn.report.costs import Costs

try:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
except ImportError as error:
    raise ConfigError("a report needs matplotlib: pip install 'pemn[server]'") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "ink": "#20242a",
    "up": "#0072b2",
    "up-overhead": "#56b4e9",
    "down": "#d55e00",
    "down-overhead": "#e69f00",
    "reference": "#009e73",
    "other": "#cc79a7",
    "more": "#7a5fd0",
}
"""Names of the page's CSS variables and their values on a light page."""

STYLE: dict[Any, Any] = {
    "axes.edgecolor": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
    "font.size": 10.0,
    "grid.alpha": 0.15,
    "grid.color": COLOURS["ink"],
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "pemn",
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
}
_SIZE_INCHES = (4.4, 3.0)  # about the width of a phone, so that letters keep their size there
_MOST_BARS = 60
_MOST_MARKERS = 40


def format_bytes(num_bytes: float) -> str:
    """Returns a number of bytes for a reader: `999 B`, `1.23 kB`."""
    if num_bytes < 1000:
        return f"{num_bytes:.0f} B"
    text: str = EngFormatter(unit="B", places=2)(num_bytes)
    return text


def plot_accuracy_by_round(accuracy_by_round: Sequence[float]) -> str:
    """Draws the accuracy after each training round.

    Args:
        accuracy_by_round: Each 0 to 1; the first is that of round 1.
    """
    with rc_context(STYLE):
        figure, axes = start()
        axes.plot(range(1, len(accuracy_by_round) + 1), accuracy_by_round, **_line(len(accuracy_by_round)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("round")
        label_accuracy(axes)
        return embed(figure, "accuracy", "Line of test accuracy by round")


def plot_accuracy_by_bytes(
    accuracy_by_round: Sequence[float], rounds: Mapping[int, Costs], fedavg_bytes: int
) -> str:
    """Draws the accuracy against the bytes of all clients up to then.

    Args:
        accuracy_by_round: Each 0 to 1; the first is that of round 1.
        rounds: What each cost; 0 is joining, the one after the last training round the final broadcast.
        fedavg_bytes: What FedAvg moves in the whole run.
    """
    so_far = dict(zip(rounds, accumulate(costs.moved for costs in rounds.values()), strict=True))
    pairs = [(so_far[at], accuracy) for at, accuracy in enumerate(accuracy_by_round, 1) if so_far.get(at)]
    with rc_context(STYLE):
        figure, axes = start()
        axes.plot([x for x, _ in pairs], [y for _, y in pairs], **_line(len(pairs)))
        if fedavg_bytes:
            axes.axvline(fedavg_bytes, color=COLOURS["reference"], linestyle="--", linewidth=1.5)
            axes.annotate(
                "FedAvg, whole run",
                (fedavg_bytes, 0.03),
                xycoords=("data", "axes fraction"),
                xytext=(-4, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                color=COLOURS["reference"],
            )
        label_bytes(axes)
        axes.set_xlabel("bytes so far, both ways, all clients")
        label_accuracy(axes)
        return embed(figure, "cost", "Line of test accuracy by bytes so far")


def plot_bytes_by_round(rounds: Mapping[int, Costs], num_rounds: int, overhead: str) -> str:
    """Draws the bytes of each round, up above the axis and down below it.

    The axis is linear: heights that are stacked on a logarithmic one cannot be compared.

    Args:
        rounds: What each cost; 0 is joining, the one after the last training round the final broadcast.
        num_rounds: Training rounds of the run.
        overhead: What is not payload, for the legend.
    """
    names = {0: "join", num_rounds + 1: "final"}
    # Without gaps where bars are many; the thin edge closes the seams that a browser would leave.
    many = len(rounds) > _MOST_BARS
    shape: dict[str, Any] = {"width": 1.0, "linewidth": 0.3} if many else {"width": 0.8, "linewidth": 0.0}
    with rc_context(STYLE):
        figure, axes = start()
        for sign, name, costs in (
            (1, "up", [both.up for both in rounds.values()]),
            (-1, "down", [both.down for both in rounds.values()]),
        ):
            payload = [sign * cost.payload for cost in costs]
            above = [sign * cost.overhead for cost in costs]
            for heights, floor, colour, what in (
                (payload, 0, COLOURS[name], "payload"),
                (above, payload, COLOURS[f"{name}-overhead"], overhead),
            ):
                label = f"{name}, {what}"
                axes.bar(
                    list(rounds), heights, bottom=floor, color=colour, edgecolor=colour, label=label, **shape
                )
        axes.axhline(0, color=COLOURS["ink"], linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: names.get(round(x), f"{x:.0f}")))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _bytes_axis()(abs(y))))
        axes.set_xlabel("round")
        axes.set_ylabel("bytes, all clients   (down | up)")
        figure.legend(loc="outside lower center", ncols=2)
        return embed(figure, "rounds", "Bars of bytes by round")


def start() -> tuple[Figure, Axes]:
    """Returns a figure of the size of a page's plots, and its axes."""
    figure = Figure(figsize=_SIZE_INCHES)
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _line(num_points: int) -> dict[str, Any]:
    return {
        "color": COLOURS["up"],
        "linewidth": 2,
        "marker": "o" if num_points <= _MOST_MARKERS else "",
        "markersize": 4,
    }


def label_accuracy(axes: Axes) -> None:
    """Makes the axis of y one of accuracy, 0 .. 1, shown in percent."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g} %"))
    axes.set_ylabel("test accuracy")


def label_bytes(axes: Axes) -> None:
    """Makes the axis of x a logarithmic one of bytes; for when all is drawn."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < 100 * low:  # a power of ten alone would label one place or none
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(_bytes_axis())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _bytes_axis() -> EngFormatter:
    return EngFormatter(unit="B")


def embed(figure: Figure, name: str, label: str) -> str:
    """Returns an SVG element for an HTML page: as wide as its place, names unique on the page, no address.

    Args:
        figure: Drawn with `STYLE`.
        name: What the names in it begin with; another for each figure of a page.
        label: What it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({key: STYLE[key] for key in ("svg.fonttype", "svg.hashsalt")}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    root = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', buffer.getvalue())
    assert root is not None
    body = buffer.getvalue()[root.end() :]
    body = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    for variable, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    return f'<svg {root[1]} role="img" aria-label="{label}">{body}'
