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
_LEAST_RATIO = 79.0
_LABELS = {"PEMN": "PEMN", "random": "pruned at random", "magnitude": "pruned by magnitude"}
_NAMES = {"dense": "Dense", "full": "Mask", "one-layer": "One-layer", "mp": "MP"}


@dataclass(frozen=True)
class Point:
    """Runs that differ in their seeds alone.

    Attributes:
        setting: Strategy, or kind of pruning.
        accuracies: Percent, of each seed.
        unique_values: Of the prototype, if it has one.
        weight_compression_ratio: Percent saved of the weights that are masked or pruned: of masks by the paper's rule,
            of pruning by ours (`pemn.training.pruned`).
        num_bytes: All that must be known besides the graph of the network: values, positions or mask, floats.
    """

    setting: str
    accuracies: tuple[float, ...]
    unique_values: int | None
    weight_compression_ratio: float | None
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
        beside: Name of a network and its published points, which get axes of their own.
    """
    shown = [point for point in points if point.setting not in PRUNED]
    with rc_context(STYLE):
        figure, axes = _start(2 if beside else 1, width_inches=6.0)
        places = range(len(shown))
        for place, point in zip(places, shown, strict=True):
            seeds = [place] * len(point.accuracies)
            axes[0].plot(seeds, point.accuracies, ".", color=_COLOURS["PEMN"], alpha=0.35)
        axes[0].plot(places, [point.mean for point in shown], "o-", color=_COLOURS["PEMN"])
        axes[0].set_xticks(list(places), [_tick(point) for point in shown], rotation=45, ha="right")
        axes[0].set_xlabel("strategy: how many values all weights are made of")
        _title(axes[0], model, shown)
        if beside:
            name, published = beside
            strategies, accuracies = zip(*published.by_strategy.items(), strict=True)
            axes[1].plot(
                range(len(strategies)), accuracies, "o-", color=COLOURS["ink"], markerfacecolor="none"
            )
            axes[1].set_xticks(
                range(len(strategies)), [_name(each) for each in strategies], rotation=45, ha="right"
            )
            axes[1].set_xlabel("strategy")
            _title_published(axes[1], name)
    return figure


def draw_compression(model: str, points: Sequence[Point], beside: tuple[str, Published] | None) -> Figure:
    """Draws accuracy against size, with the two ways of pruning: by all bytes, and by the paper's rule.

    Args:
        model: Name of the network.
        points: Of all runs.
        beside: Name of a network and its published points by the paper's rule, which get axes of their own.
    """
    drawn = beside is not None and bool(beside[1].ratios)
    with rc_context(STYLE):
        figure, axes = _start(3 if drawn else 2, width_inches=5.0)
        by_bytes, by_rule = axes[:2]
        for name, shown in (("PEMN", _masked(points)), *((kind, _of(points, kind)) for kind in PRUNED)):
            if not shown:
                continue
            style = _style(name)
            for point in shown:
                for where, x in (
                    (by_bytes, point.num_bytes),
                    (by_rule, point.weight_compression_ratio or 0.0),
                ):
                    where.plot(
                        [x] * len(point.accuracies), point.accuracies, ".", color=style["color"], alpha=0.35
                    )
                if name == "PEMN":
                    _annotate(by_rule, point.setting, point.weight_compression_ratio or 0.0, point.mean)
            means = [point.mean for point in shown]
            by_bytes.plot([point.num_bytes for point in shown], means, label=_LABELS[name], **style)
            by_rule.plot([point.weight_compression_ratio or 0.0 for point in shown], means, **style)
        for dense in _of(points, "dense"):
            by_bytes.axhline(dense.mean, color=COLOURS["ink"], linestyle="--", linewidth=1, label="dense")
            by_rule.axhline(dense.mean, color=COLOURS["ink"], linestyle="--", linewidth=1)
        by_bytes.xaxis.set_major_formatter(EngFormatter(unit="B"))
        by_bytes.set_xlabel("all bytes but those of the graph")
        _title(by_bytes, model, points)
        _finish_ratio(by_rule, _masked(points))
        _title(by_rule, model, points)
        if beside and drawn:
            _draw_published(axes[2], *beside)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def _draw_published(axes: Axes, name: str, published: Published) -> None:
    pairs = [(ratio, published.by_strategy[setting]) for setting, ratio in published.ratios.items()]
    axes.plot(*zip(*pairs, strict=True), markerfacecolor="none", **_style("PEMN"))
    for kind, accuracies in published.pruned.items():
        axes.plot(RATIOS, accuracies, markerfacecolor="none", **_style(kind))
    axes.axhline(published.by_strategy["dense"], color=COLOURS["ink"], linestyle="--", linewidth=1)
    for setting, ratio in published.ratios.items():
        place = (ratio, published.by_strategy[setting])
        _annotate(axes, setting, *place)
    _finish_ratio(axes, [])
    _title_published(axes, name)


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


def _start(num_axes: int, width_inches: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width_inches * num_axes, 4.2))
    axes = [figure.add_subplot(1, num_axes, place + 1) for place in range(num_axes)]
    for each in axes:
        each.set_ylabel("test accuracy, percent")
    return figure, axes


def _of(points: Sequence[Point], setting: str) -> list[Point]:
    return sorted((point for point in points if point.setting == setting), key=lambda point: point.num_bytes)


def _masked(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if point.setting not in (*PRUNED, "dense")]


def _style(name: str) -> dict[str, Any]:
    return {"color": _COLOURS[name], "marker": "o", "linestyle": "" if name == "PEMN" else "-"}


def _annotate(axes: Axes, setting: str, x: float, y: float) -> None:
    axes.annotate(_name(setting), (x, y), (1, 5), textcoords="offset points", rotation=55, fontsize=7)


def _name(setting: str) -> str:
    """Returns a strategy as people write it: `RP 1e-3`."""
    if not setting.startswith("rp:"):
        return _NAMES.get(setting, setting)
    digits, exponent = f"{float(setting.removeprefix('rp:')):e}".split("e")
    return f"RP {float(digits):g}e{int(exponent)}"


def _tick(point: Point) -> str:
    name = _name(point.setting)
    return name if point.unique_values is None else f"{name}: {point.unique_values:,}"


def _finish_ratio(axes: Axes, masked: Sequence[Point]) -> None:
    """What saves less than 80 % is out of sight, as in the paper, and is told in words."""
    left, hidden = _LEAST_RATIO, [p for p in masked if (p.weight_compression_ratio or 0.0) < _LEAST_RATIO]
    axes.set_xlim(left, 98)
    axes.set_xlabel("percent saved of the weights (of masks: by the paper's rule)")
    if hidden:
        told = [f"{_name(p.setting)} {p.mean:.1f} at {p.weight_compression_ratio:.0f} %" for p in hidden]
        axes.text(0.01, 0.02, "left of this: " + ", ".join(told), transform=axes.transAxes, fontsize=7)


def _title(axes: Axes, model: str, points: Sequence[Point]) -> None:
    seeds = max((len(point.accuracies) for point in points), default=1)
    axes.set_title(f"{model}, mean of {seeds} seeds" if seeds > 1 else model, fontsize=10)


def _title_published(axes: Axes, name: str) -> None:
    axes.set_title(f"published: {name}, best epoch on the test images", fontsize=10)
