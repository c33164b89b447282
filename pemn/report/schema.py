"""Checks a run's summary and ledger against the JSON schemas beside this file, as far as a page needs it.

Names and types are checked; bounds and patterns are for the schemas' readers (any JSON Schema tool).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from pemn.errors import FileError

_TYPES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "integer": (int,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}


def load_schema(name: str) -> dict[str, Any]:
    """Returns the JSON schema `summary` or `ledger`."""
    schema: dict[str, Any] = json.loads(files("pemn.report").joinpath(f"{name}.schema.json").read_bytes())
    return schema


def check_summary(summary: Mapping[str, Any]) -> None:
    """Checks the contents of `summary.json`.

    Raises:
        FileError: If a name is missing or unknown or a value is of another type.
    """
    _check(summary, load_schema("summary"), "summary")


def check_ledger(lines: Iterable[Mapping[str, Any]]) -> None:
    """Checks the lines of `ledger.jsonl`.

    Raises:
        FileError: If a name is missing or unknown or a value is of another type.
    """
    schema = load_schema("ledger")
    for number, line in enumerate(lines, 1):
        _check(line, schema, f"ledger, line {number}")


def _check(value: Any, schema: Mapping[str, Any], where: str) -> None:
    wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    allowed = tuple(kind for name in wanted for kind in _TYPES[name])
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise FileError(
            "wrong type of value", got=type(value).__name__, wanted=" or ".join(wanted), where=where
        )
    if value not in schema.get("enum", [value]):
        raise FileError("wrong value", got=repr(value), wanted=" or ".join(schema["enum"]), where=where)
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, schema["items"], f"{where}[{index}]")
    if isinstance(value, dict):
        known: Mapping[str, Any] = schema["properties"]
        for names, trouble in ((schema.get("required", []), "missing"), (value, "unknown")):
            there = value if trouble == "missing" else known
            for name in names:
                if name not in there:
                    raise FileError(f"{trouble} name {name!r}", where=where)
        for name, item in value.items():
            _check(item, known[name], f"{where}.{name}")
