from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pemn.errors import FileError
from pemn.report.schema import check_ledger, check_summary, load_schema

SUMMARY, LEDGER = load_schema("summary"), load_schema("ledger")


def required(schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in schema.get("required", []):
        yield (*path, name)
    for name, part in schema.get("properties", {}).items():
        yield from required(part, (*path, name))


def parts(schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from parts(part, (*path, name))


def inside(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


def valid(schema: Mapping[str, Any], value: object) -> bool:
    return Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("schema", [SUMMARY, LEDGER])
def test_schemas_are_closed_described_and_ask_for_every_name(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    for path, part in parts(schema):
        assert part["description"].endswith("."), path
        if part["type"] == "object":
            assert part["additionalProperties"] is False, path
            if path != ("payload_by_kind",):
                assert set(part["required"]) == set(part["properties"]), path


def test_a_real_run_passes(summary: dict[str, Any], ledger: list[dict[str, Any]]) -> None:
    Draft202012Validator(SUMMARY).validate(summary)
    check_summary(summary)
    for line in ledger:
        Draft202012Validator(LEDGER).validate(line)
    check_ledger(ledger)


@pytest.mark.parametrize("path", list(required(SUMMARY)), ids=".".join)
def test_a_summary_without_a_name_or_with_another_type_fails(
    summary: dict[str, Any], path: tuple[str, ...]
) -> None:
    for change in ("remove", "retype"):
        broken = copy.deepcopy(summary)
        if change == "remove":
            del inside(broken, path[:-1])[path[-1]]
        else:
            inside(broken, path[:-1])[path[-1]] = True
        assert not valid(SUMMARY, broken)
        with pytest.raises(FileError, match=rf"{path[-1]}|bool"):
            check_summary(broken)


@pytest.mark.parametrize("path", [(), ("bytes",), ("bits_per_parameter",), ("model_bytes",)])
def test_a_summary_with_an_unknown_name_fails(summary: dict[str, Any], path: tuple[str, ...]) -> None:
    inside(summary, path)["surplus"] = 1
    assert not valid(SUMMARY, summary)
    with pytest.raises(FileError, match="unknown name 'surplus'"):
        check_summary(summary)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("accuracy",), 1.01),
        (("accuracy_by_round",), [0.5, -0.1]),
        (("seed",), 2**64),
        (("num_clients",), 0),
        (("bytes", "seed"), -1),
        (("weights_sha256",), "9F" * 32),
        (("state_hash",), "00" * 15),
        (("density",), 2.0),
    ],
)
def test_a_value_out_of_range_fails(summary: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    inside(summary, path[:-1])[path[-1]] = value
    assert not valid(SUMMARY, summary)


def test_wire_bytes_may_be_unknown_only_where_nobody_counts_them(summary: dict[str, Any]) -> None:
    for path in (("bytes", "uplink_wire"), ("bits_per_parameter", "downlink")):
        unknown = copy.deepcopy(summary)
        inside(unknown, path[:-1])[path[-1]] = None
        for source, allowed in (("framed", True), ("socket", False), ("modelled", False), ("guess", False)):
            assert valid(SUMMARY, unknown | {"wire_source": source}) is allowed
        check_summary(unknown | {"wire_source": "framed"})
    with pytest.raises(
        FileError, match=r"socket or modelled or estimated or framed; in summary\.wire_source"
    ):
        check_summary(summary | {"wire_source": "guess"})


def test_a_wrong_line_of_the_ledger_fails_and_is_named(ledger: list[dict[str, Any]]) -> None:
    for change in ({"payload": "1"}, {"direction": "side"}, {"surplus": 1}, {"payload_by_kind": {"mask": 1}}):
        assert not valid(LEDGER, ledger[1] | change)
        with pytest.raises(FileError, match="ledger, line 2"):
            check_ledger([ledger[0], ledger[1] | change])
    for name in LEDGER["required"]:
        line = {key: value for key, value in ledger[0].items() if key != name}
        assert not valid(LEDGER, line)
        with pytest.raises(FileError, match=f"missing name '{name}'"):
            check_ledger([line])
