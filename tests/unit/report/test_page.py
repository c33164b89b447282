from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from pemn.errors import FileError
from pemn.report import render
from pemn.report.costs import sum_by, sum_by_kind

ADDRESSES = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background", "cite", "ping"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_the_page_needs_nothing_but_itself(summary: dict[str, Any], ledger: list[dict[str, Any]]) -> None:
    html = render(summary, ledger)
    page = Page(html)
    for name, value in page.attributes:
        assert name not in ADDRESSES or (value or "").startswith("#"), (name, value)
        assert not name.startswith("on"), name
    assert not page.elements.keys() & {"script", "link", "img", "iframe", "object", "embed", "base", "image"}
    assert "://" not in html
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", html))


def test_names_on_the_page_are_unique_and_what_is_referred_to_is_there(
    summary: dict[str, Any], ledger: list[dict[str, Any]]
) -> None:
    html = render(summary, ledger)
    ids = Counter(value for name, value in Page(html).attributes if name == "id")
    assert max(ids.values()) == 1
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', html)) <= ids.keys()
    assert set(re.findall(r"var\(--([\w-]+)\)", html)) <= set(re.findall(r"--([\w-]+):", html))


def test_every_figure_of_the_summary_and_every_client_is_on_the_page(
    summary: dict[str, Any], ledger: list[dict[str, Any]]
) -> None:
    page = Page(render(summary, ledger, images_by_slot={0: 54_321, 2: 7}))
    words = set(re.split(r"[\s,;]+", page.text))
    for leaf in leaves(summary):
        assert str(leaf) in words, leaf
    for headline in ("91.37 %", f"{summary['saving']:.1f} times", "3.12 kB", "4.18 kB", "81.31 kB", "54,321"):
        assert headline in page.text
    for costs in sum_by(ledger, "slot").values():
        for cost in (costs.up, costs.down):
            assert f"{cost.moved:,}" in page.text
            assert f"{cost.payload:,}" in page.text
    for kind, num_bytes in sum_by_kind(ledger).items():
        assert kind in page.text
        assert f"{num_bytes:,}" in page.text
    assert page.elements["svg"] == 3


def test_texts_of_the_user_stay_texts(summary: dict[str, Any], ledger: list[dict[str, Any]]) -> None:
    hostile = "<script>alert(1)</script>\"'&amp;$title $\\frac{1}{2}$"
    names = ("dataset", "model", "partition", "strategy", "pemn_version", "weights_sha256", "state_hash")
    page = Page(render(summary | dict.fromkeys(names, hostile), ledger))
    usual = Page(render(summary, ledger))
    assert page.elements == usual.elements
    assert len(page.attributes) == len(usual.attributes)
    assert page.text.count(hostile) >= len(names)


def test_sums_agree_with_the_ledger(ledger: list[dict[str, Any]]) -> None:
    for column in ("round", "slot"):
        sums = sum_by(ledger, column).values()
        assert sum(costs.moved for costs in sums) == sum(line["wire"] for line in ledger)
        assert sum(costs.up.payload + costs.down.payload for costs in sums) == sum(
            line["payload"] for line in ledger
        )
        assert sum(costs.num_updates for costs in sums) == 12
    ledger[0]["wire"] = None
    known = sum(line["wire"] for line in ledger[1:])
    assert sum(costs.moved for costs in sum_by(ledger, "slot").values()) == known + ledger[0]["framed"]


def test_unknown_wire_bytes_are_said_to_be_unknown(
    summary: dict[str, Any], ledger: list[dict[str, Any]]
) -> None:
    summary["wire_source"] = "framed"
    summary["bytes"] |= {"uplink_wire": None, "downlink_wire": None}
    summary["bits_per_parameter"] |= {"uplink": None, "downlink": None}
    text = Page(render(summary, [line | {"wire": None} for line in ledger])).text
    assert "this platform does not count" in text
    assert "up, framing\n" in text
    assert "TLS" not in text
    assert "None" not in text


@pytest.mark.parametrize("num_rounds", [0, 1, 100])
def test_short_and_long_runs_have_a_page(
    summary: dict[str, Any], ledger: list[dict[str, Any]], num_rounds: int
) -> None:
    lines = [line | {"round": round_} for round_ in range(num_rounds + 2) for line in ledger[:2]]
    summary |= {"num_rounds": num_rounds, "accuracy_by_round": [0.5] * num_rounds}
    summary |= {"abandoned_rounds": 0} if num_rounds else {"fedavg_bytes": 0, "saving": 0.0}
    page = Page(render(summary, lines))
    assert page.elements["svg"] == (3 if num_rounds else 1)
    assert "join" in page.text
    assert "final" in page.text or num_rounds == 100  # no tick falls on it
    assert ("abandoned for" in page.text) is (num_rounds == 0)


def test_a_run_without_a_ledger_or_with_half_of_it_has_a_page(
    summary: dict[str, Any], ledger: list[dict[str, Any]]
) -> None:
    assert Page(render(summary, [])).elements["svg"] == 1
    assert Page(render(summary, ledger[:2])).elements["svg"] == 3


def test_of_very_many_clients_the_dearest_are_shown(
    summary: dict[str, Any], ledger: list[dict[str, Any]]
) -> None:
    lines = [ledger[0] | {"slot": slot, "wire": 5000 + slot} for slot in range(1003)]
    page = Page(render(summary, lines))
    assert "Of 1,003 clients, the 1,000 that cost most." in page.text
    assert "\n6,002\n" in page.text
    assert "\n5,002\n" not in page.text


def test_a_broken_summary_or_ledger_is_refused(summary: dict[str, Any], ledger: list[dict[str, Any]]) -> None:
    with pytest.raises(FileError, match="missing name 'saving': in summary"):
        render({name: value for name, value in summary.items() if name != "saving"}, ledger)
    with pytest.raises(FileError, match=r"got str; wanted integer; in ledger, line 1\.slot"):
        render(summary, [ledger[0] | {"slot": "0"}])


def test_the_page_is_the_same_every_time_and_leaves_matplotlib_as_it_was(
    summary: dict[str, Any], ledger: list[dict[str, Any]]
) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    assert render(summary, ledger) == render(summary, ledger)
    assert dict(matplotlib.rcParams) == before
    code = "import sys, pemn.report; print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr


def test_without_matplotlib_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; import pemn.report"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = unescape(done.stderr.splitlines()[-1])
    assert last.endswith("ConfigError: a report needs matplotlib: pip install 'pemn[server]'")
