"""Pieces of a page that needs nothing but itself: no other file, no host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from pemn.report.plots import COLOURS


def document(title: str, body: str) -> str:
    """Returns a whole HTML document.

    Args:
        title: Plain text.
        body: HTML.
    """
    page = Template(files("pemn.report").joinpath("page.html").read_text("utf-8"))
    colours = " ".join(f"--{name}: {colour};" for name, colour in COLOURS.items())
    return page.substitute(title=escape(title), colours=colours, body=body)


def card(title: str, figure: str, note: str) -> str:
    """Returns a figure that stands out, with a title above and a note below; all plain text."""
    return (
        f'<div class="card">{escape(title)}<strong>{escape(figure)}</strong>'
        f'<span class="faint">{escape(note)}</span></div>'
    )


def figure(title: str, note: str, svg: str) -> str:
    """Returns a drawing with its caption.

    Args:
        title: Plain text.
        note: Plain text.
        svg: An element, as `pemn.report.plots.embed` returns it.
    """
    return (
        f'<figure><figcaption>{escape(title)}<p class="faint">{escape(note)}</p></figcaption>{svg}</figure>'
    )


def plots(drawn: Iterable[str]) -> str:
    """Returns a section of drawings side by side, as far as the window has room."""
    return '<section class="plots">\n' + "\n".join(drawn) + "\n</section>"


def section(title: str, note: str, table: str) -> str:
    """Returns a table with a heading and a note in plain text."""
    return f'<h2>{escape(title)}</h2><p class="faint">{escape(note)}</p><div class="scroll">{table}</div>'


def details(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Returns a table of names and values that is folded away."""
    body = table(("name", "value"), rows, kind="words")
    return f'<details>\n<summary>{escape(title)}</summary>\n<div class="scroll">\n{body}\n</div>\n</details>'


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], kind: str = "figures") -> str:
    """Returns a table.

    Args:
        columns: Their heads.
        rows: Integers get separators, None a question mark, all else is text.
        kind: `figures`, to the right, or `words`, to the left.
    """
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, object]]:
    """Yields every value of nested mappings with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    else:
        yield name, "unknown" if value is None else str(value)


def _cell(value: object) -> str:
    if value is None:
        return "<td>?</td>"
    return f"<td>{escape(f'{value:,}' if isinstance(value, int) else str(value))}</td>"
