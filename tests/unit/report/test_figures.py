"""The two figures: every run is a point where its numbers say, and the published ones stand beside."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pemn.report.figures import Point, draw_compression, draw_unique_values, to_png, to_svg
from pemn.report.published import PUBLISHED

POINTS = [
    Point("dense", (90.0, 92.0), None, None, 4000),
    Point("full", (80.0, 82.0), 1000, 0.0, 4125),
    Point("rp:0.01", (78.0, 79.0), 10, 95.875, 165),
    Point("rp:1e-05", (60.0, 64.0), 1, 96.775, 129),
    Point("magnitude", (70.0, 71.0), None, 96.0, 160),
    Point("magnitude", (75.0, 76.0), None, 90.0, 400),
    Point("random", (69.0, 70.0), None, 96.0, 160),
]
BESIDE = ("convmixer-6-256", PUBLISHED["convmixer-6-256", "cifar10"])


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    return [list(map(tuple, np.asarray(line.get_xydata()).tolist())) for line in axes.lines]


def texts(figure: Figure) -> str:
    return " ".join(" ".join(ET.fromstring(to_svg(figure)).itertext()).split())


def test_strategies_stand_in_their_order_with_every_seed() -> None:
    (axes,) = draw_unique_values("net", POINTS, None).axes
    assert lines(axes)[-1] == [(0, 91.0), (1, 81.0), (2, 78.5), (3, 62.0)]
    assert lines(axes)[2] == [(2, 78.0), (2, 79.0)]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["Dense", "Mask: 1,000", "RP 1e-2: 10", "RP 1e-5: 1"]
    assert axes.get_title() == "net, mean of 2 seeds"


def test_sizes_are_bytes_on_the_left_and_the_papers_ratio_on_the_right() -> None:
    figure = draw_compression("net", POINTS, None)
    by_bytes, by_rule = figure.axes
    assert [(400, 75.5), (160, 70.5)][::-1] in lines(by_bytes)  # magnitude, by size
    assert [(4125, 81.0), (165, 78.5), (129, 62.0)] in lines(by_bytes)
    assert [(0.0, 81.0), (95.875, 78.5), (96.775, 62.0)] in lines(by_rule)
    assert all(any(line.get_linestyle() == "--" for line in axes.lines) for axes in figure.axes)  # dense
    told = texts(figure)
    for wanted in (
        "pruned at random",
        "pruned by magnitude",
        "PEMN",
        "dense",
        "left of this: Mask 81.0 at 0 %",
    ):
        assert wanted in told


def test_published_points_have_axes_of_their_own_and_say_so() -> None:
    name, published = BESIDE
    _, beside = draw_unique_values("net", POINTS, BESIDE).axes
    assert lines(beside) == [list(enumerate(published.by_strategy.values()))]
    assert beside.get_title() == f"published: {name}, best epoch on the test images"
    *_, beside = draw_compression("net", POINTS, BESIDE).axes
    pairs = [(ratio, published.by_strategy[setting]) for setting, ratio in published.ratios.items()]
    assert pairs in lines(beside)
    assert beside.get_title() == f"published: {name}, best epoch on the test images"


def test_what_was_not_run_is_not_drawn() -> None:
    figure = draw_compression("net", POINTS[1:3], None)
    assert [len(lines(axes)) for axes in figure.axes] == [3, 3]  # two points, and the two as one set
    assert "pruned" not in texts(figure)
    assert "dense" not in texts(figure)


@pytest.mark.parametrize("beside", [None, BESIDE])
def test_files_are_whole_and_the_same_every_time(beside: tuple[str, object] | None) -> None:
    for draw in (draw_unique_values, draw_compression):
        one, two = (draw("net", POINTS, beside) for _ in range(2))  # type: ignore[arg-type]
        assert to_svg(one) == to_svg(two)
        data = to_png(one)
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert data == to_png(two)
