"""The paper's two figures: accuracy by how many values there are, and by how small the network is."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from pemn.report.plots import COLOURS, STYLE
from pemn.report.published import RATIOS, Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRUNED = ("random", "magnitude")
_COLOURS = {"PEMN": COLOURS["up"], "random": COLOURS["down"], "magnitude": COLOURS["reference"]}
_NAMES = {"dense": "Dense", "full": "Mask", "one-layer": "One-layer", "mp": "MP"}
_PUBLISHED: dict[str, Any] = {
    "linestyle": ":",
    "marker": "o",
    "markerfacecolor": "none",
    "alpha": 0.55,
    "linewidth": 1.2,
}


@dataclass(frozen=True)
class Point:
    """Runs that differ in their seeds alone.

    Attributes:
        setting: Strategy, or kind of pruning.
        accuracies: Percent, of each seed.
        unique_values: Of the prototype, if it has one.
        paper_compression_ratio: Percent saved by the paper's rule, if that applies.
        num_bytes: All that must be known besides the graph of the network: values, positions or mask, floats.
    """

    setting: str
    accuracies: tuple[float, ...]
    unique_values: int | None
    paper_compression_ratio: float | None
    num_bytes: int

    @property
    def mean(self) -> float:
        """Mean accuracy in percent."""
        return statistics.fmean(self.accuracies)


def draw_unique_values(model: str, points: Sequence[Point], beside: tuple[str, Published] | None) -> Figure:
    """Draws accuracy against strategies, from many values to few.

    Args:
        model: Name of the network.
        points: Of all runs; those of pruning are left out.
        beside: Name of a network and its published points.
    """
    shown = [point for point in points if point.setting not in PRUNED]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.8))
        axes = figure.add_subplot()
        places = range(len(shown))
        for place, point in zip(places, shown, strict=True):
            axes.plot(
                [place] * len(point.accuracies), point.accuracies, ".", color=_COLOURS["PEMN"], alpha=0.35
            )
        axes.plot(
            places, [point.mean for point in shown], "o-", color=_COLOURS["PEMN"], label=_label(model, shown)
        )
        if beside:
            name, published = beside
            drawn = [
                (place, published.by_strategy[point.setting])
                for place, point in zip(places, shown, strict=True)
                if point.setting in published.by_strategy
            ]
            axes.plot(*zip(*drawn, strict=True), color=COLOURS["ink"], label=_published(name), **_PUBLISHED)
        axes.set_xticks(list(places), [_tick(point) for point in shown])
        axes.set_xlabel("strategy, and how many values all weights are made of")
        _finish(figure, axes)
    return figure


def draw_compression(model: str, points: Sequence[Point], beside: tuple[str, Published] | None) -> Figure:
    """Draws accuracy against size, beside the two ways of pruning: by the paper's rule, and by all bytes.

    Args:
        model: Name of the network.
        points: Of all runs.
        beside: Name of a network and its published points, for the paper's rule.
    """
    masked = [point for point in points if point.paper_compression_ratio and point.setting not in PRUNED]
    with rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.2))
        by_rule, by_bytes = figure.subplots(1, 2, sharey=True)
        for name, shown in [("PEMN", masked), *((kind, _of(points, kind)) for kind in PRUNED)]:
            shown = sorted(shown, key=lambda point: point.num_bytes)
            line: dict[str, Any] = {
                "color": _COLOURS[name],
                "marker": "o",
                "linestyle": "" if name == "PEMN" else "-",
                "label": f"{_label(model, shown)}, {name}" if name == "PEMN" else f"pruned, {name}",
            }
            if shown:
                by_rule.plot(
                    [point.paper_compression_ratio or 0 for point in shown], [p.mean for p in shown], **line
                )
                by_bytes.plot([point.num_bytes for point in shown], [p.mean for p in shown], **line)
        for dense in _of(points, "dense"):
            by_rule.axhline(dense.mean, color=COLOURS["ink"], linestyle="--", linewidth=1, label="dense")
            by_bytes.axhline(dense.mean, color=COLOURS["ink"], linestyle="--", linewidth=1)
        if beside and beside[1].ratios:
            _draw_published(by_rule, *beside)
        least = min([p.paper_compression_ratio for p in points if p.paper_compression_ratio], default=90.0)
        by_rule.set_xlim(left=max(min(least, 90.0), 80.0) - 0.5)
        by_rule.set_xlabel("saved by the paper's rule, percent of the weights")
        by_bytes.set_xscale("log")
        by_bytes.xaxis.set_major_formatter(EngFormatter(unit="B"))
        by_bytes.xaxis.set_minor_formatter(EngFormatter(unit="B"))
        by_bytes.tick_params(axis="x", which="both", labelrotation=45)
        by_bytes.set_xlabel("all bytes but the graph's")
        _finish(figure, by_rule)
    return figure


def _draw_published(axes: Axes, name: str, published: Published) -> None:
    pairs = [(ratio, published.by_strategy[setting]) for setting, ratio in published.ratios.items()]
    style = {**_PUBLISHED, "linestyle": ""}
    axes.plot(*zip(*pairs, strict=True), color=_COLOURS["PEMN"], label=_published(name), **style)
    for kind, accuracies in published.pruned.items():
        axes.plot(RATIOS, accuracies, color=_COLOURS[kind], **_PUBLISHED)


def to_png(figure: Figure) -> bytes:
    """Returns a figure as a PNG file."""
    FigureCanvasAgg(figure)
    return _saved(figure, format="png", dpi=150, metadata={"Software": None})


def to_svg(figure: Figure) -> bytes:
    """Returns a figure as an SVG file, the same bytes every time."""
    with rc_context({"svg.hashsalt": "pemn", "svg.fonttype": "none"}):
        return _saved(figure, format="svg", metadata={"Date": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def _of(points: Sequence[Point], setting: str) -> list[Point]:
    return [point for point in points if point.setting == setting]


def _label(model: str, shown: Sequence[Point]) -> str:
    seeds = max((len(point.accuracies) for point in shown), default=0)
    return f"{model}, mean of {seeds} seeds" if seeds > 1 else model


def _published(name: str) -> str:
    return f"published, {name} (best epoch on the test images)"


def _tick(point: Point) -> str:
    name = _NAMES.get(point.setting, point.setting.replace("rp:", "RP "))
    return name if point.unique_values is None else f"{name}\n{point.unique_values:,}"


def _finish(figure: Figure, axes: Axes) -> None:
    axes.set_ylabel("test accuracy, percent")
    figure.legend(loc="outside lower center", ncols=2)
