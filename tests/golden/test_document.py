"""docs/wire.md says what the code does: limits, errors, fields, golden words, the worked example, and its own links."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pemn import errors, generator
from pemn.artifact import FORMAT_VERSION, Artifact
from pemn.codec import log2, model, rans, rice
from pemn.distribution import Distribution, normal_table
from pemn.federation import groups, levels, tally
from pemn.generator import Purpose
from pemn.ledger import Entry
from pemn.link import client, frames, keepalive, server, session
from pemn.link.v1 import link_pb2
from pemn.mask import Mask, untied
from pemn.onnx.v1 import onnx_pb2
from pemn.prototype import Strategy
from pemn.wire import limits
from pemn.wire.v1 import messages_pb2
from tests.golden import example, reference, reference_codes
from tests.golden.reference_messages import decode_artifact
from tests.golden.test_example import MODEL, SKELETON

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/wire.md").read_text()
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def section(heading: str) -> str:
    """What stands under a heading, with the sections below it."""
    match = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL
    )
    assert match, f"no section {heading!r}"
    if match[1] == "###":
        return match[2].split("\n### ")[0]
    return match[2]


def rows(text: str, num_columns: int) -> list[list[str]]:
    """The tables' rows with so many columns, less their heads."""
    lines = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    heads = {i - 1 for i, cells in enumerate(lines) if set(cells) == {"---"}}
    return [
        cells
        for i, cells in enumerate(lines)
        if len(cells) == num_columns and i not in heads and set(cells) != {"---"}
    ]


def test_limits() -> None:
    told = {name: int(value) for name, value, _ in rows(section("Limits"), 3)}
    coded = {name: value for name, value in vars(limits).items() if isinstance(value, int)}
    assert told == coded


@pytest.mark.parametrize(
    ("name", "bound"), [("task", limits.max_task_bytes), ("answer", limits.max_answer_bytes)]
)
def test_the_bound_of_a_content(name: str, bound: Callable[[int], int]) -> None:
    match = re.search(rf"{name} may have `([^`]*)` bytes", section("Limits"))
    assert match
    assert re.fullmatch(r"[A-Zn_0-9+*/ ]+", match[1])
    for n in (1, 7, 1000, 123_457, limits.MAX_PARAMS):
        told = eval(match[1], {"__builtins__": {}}, {"MAX_SPEC_BYTES": limits.MAX_SPEC_BYTES, "n": n})
        assert told == bound(n)


def test_errors() -> None:
    told = [
        (int(code), name, int(exit_code), status)
        for code, name, exit_code, status, _ in rows(section("Errors"), 5)
    ]
    coded = [
        (code, cls.__name__, cls.exit_code, cls.grpc_status) for code, cls in errors.every_error().items()
    ]
    assert told == coded
    assert f"{errors.EXIT_INTERRUPTED} after" in section("Errors")


def kind(field: FieldDescriptor) -> str:
    """The type of a field as the document writes it."""
    message = field.message_type
    if message is None:
        single = {
            FieldDescriptor.TYPE_UINT32: "uint32",
            FieldDescriptor.TYPE_FIXED64: "fixed64",
            FieldDescriptor.TYPE_FLOAT: "float",
            FieldDescriptor.TYPE_STRING: "string",
            FieldDescriptor.TYPE_BYTES: "bytes",
        }[field.type]
    elif message.GetOptions().map_entry:
        return "map of {} to {}".format(*(kind(entry) for entry in message.fields))
    else:
        single = message.name
    return f"repeated {single}" if field.is_repeated else single


def messages(module: ModuleType) -> list[Descriptor]:
    return list(module.DESCRIPTOR.message_types_by_name.values())


@pytest.mark.parametrize("message", messages(messages_pb2) + messages(link_pb2), ids=lambda m: str(m.name))
def test_fields(message: Descriptor) -> None:
    told = [(int(number), name, type_) for number, name, type_, _ in rows(section(message.name), 4)]
    assert told == [(field.number, field.name, kind(field)) for field in message.fields]


def test_constants_in_the_text() -> None:
    text = " ".join(DOCUMENT.split())
    purposes = {name.replace("_", " "): int(number) for name, number, *_ in rows(section("Random words"), 4)}
    assert purposes == {purpose.name.lower().replace("_", " "): int(purpose) for purpose in Purpose}
    assert f"clip(q_start + k * step, {levels.LOWEST}, {levels.HIGHEST})" in text
    assert tally.UNIT == 1 << 24
    assert f"{groups.MAX_GROUPS}. A weight is in the group" in text
    assert f"at most {rice.MAX_ONES} |" in text
    assert f"rice is out if there are more than {rice.MAX_ONES} ones" in text
    assert f"K, 0 .. {reference_codes.LARGEST_K};" in text
    assert f"min(max(cost // 6400, clip((cost - 32768) // 3072, 1, 32)), {rans.MAX_LANES})" in text
    assert f"{rans.LANE_BYTES} * K + cost // 8 + 3" in text
    assert f"clip(e, 1, {model.SCALE - 1})" in text
    assert f"at most {limits.MAX_START_EDGES} integers" in text
    assert f"0x00, then the version of the format: 0x{FORMAT_VERSION:02x}" in text
    assert (
        f"Version {limits.PROTOCOL_VERSION} of the protocol, version {FORMAT_VERSION} of the `.pemn` file"
        in text
    )
    assert f"within {session.HELLO_TIMEOUT_S} s" in text
    assert f"at most {session.MAX_HELLO_BYTES} bytes" in text
    assert f"{limits.CLIENT_ID_BYTES} bytes" in text


def test_the_links_numbers() -> None:
    text = " ".join(section("The link").split())
    assert f"ping after {keepalive.PING_INTERVAL_S} s" in text
    assert f"no answer comes for {keepalive.PING_TIMEOUT_S} s" in text
    assert f"more often than every {keepalive.MIN_PING_INTERVAL_S} s" in text
    assert f"at most 2 a slot and {server.MAX_STRANGERS} more" in text
    assert f"{client.FIRST_RETRY_S} s, doubled with every failure up to {client.LAST_RETRY_S:.0f} s" in text
    assert f"After {client.GIVE_UP_AFTER_S:.0f} s" in text
    assert f"`/{frames.SERVICE}/{frames.SESSION}`" in text


def test_the_ledger() -> None:
    told = [name for name, _, _ in rows(section("The ledger"), 3)]
    fields = [field.name for field in dataclasses.fields(Entry)]
    assert told[: len(fields)] == fields
    code = (ROOT / "server/pemn_server/simulation.py").read_text()
    for name in ("MESSAGE_OVERHEAD_BYTES", "CONNECTION_OVERHEAD_BYTES"):
        match = re.search(rf"^{name} = ([0-9_]+)$", code, re.MULTILINE)
        assert match
        assert f"`{name}` = {int(match[1])}" in " ".join(section("The ledger").split())


def names_in_packed_files() -> tuple[dict[str, str], set[str]]:
    """Operators by the names of their nodes, and the names of initialisers, in files of every kind."""
    packed = pytest.importorskip("pemn.export.packed")
    operators: dict[str, str] = {}
    tensors: set[str] = set()
    kinds = itertools.product(["rp:0.3", "full", "mp"], Distribution, [1, 3], [1, 2])
    for strategy, distribution, tie, terms in kinds:
        named, (first, last) = Strategy.parse(strategy), MODEL.layers
        layers = (first, dataclasses.replace(last, terms=terms))
        model = dataclasses.replace(MODEL, layers=layers, strategy=named, distribution=distribution, tie=tie)
        mask = Mask.from_bits(np.ones(model.num_bits, np.bool_), model.bit_sizes)
        file = onnx_pb2.Model.FromString(packed.packed(Artifact.of(model, mask, SKELETON, {})))
        for node in file.graph.node:
            if node.name.startswith("pemn/"):
                name = re.sub(r"/[0-9]+/", "/J/" if "signs" in node.name else "/I/", node.name)
                assert operators.setdefault(name, node.op_type) == node.op_type
        tensors |= {tensor.name for tensor in file.graph.initializer if tensor.name.startswith("pemn.")}
    return operators, tensors


def test_the_packed_files_names_are_those_of_the_tables() -> None:
    table = rows(section("The packed ONNX file"), 3)
    told: dict[str, str] = {}
    for names, operators, _ in table:
        listed, kinds = re.findall(r"`(pemn/[^`]+)`", names), operators.split(", ")
        if listed:
            told |= dict(zip(listed, kinds if len(kinds) > 1 else kinds * len(listed), strict=True))
    nodes, tensors = names_in_packed_files()
    assert nodes == told
    named = {name for row in table for name in re.findall(r"`(pemn\.[a-z_]+)`", row[0])}
    assert {name for name in tensors if not name[-1].isdigit()} == named


def test_the_table_of_quantiles() -> None:
    text = section("Weights")
    table = normal_table().astype(np.float16)
    assert f"`{hashlib.sha256(table.astype('<f2').tobytes()).hexdigest()}`" in text
    told = [cells for cells in rows(text, 3) if cells[0].isdigit()]
    assert len(told) > 5
    for u, entry, binary16 in told:
        assert table[int(u)] == np.float16(entry)
        assert f"`{table.view(np.uint16)[int(u)]:04x}`" == binary16
        assert reference.normal_entry(int(u)) == table[int(u)]


def test_the_sums_of_the_table() -> None:
    told = [[float(text) for text in cells] for cells in rows(section("Sums"), 3)]
    assert len(told) > 3
    for number, (_, _, weight) in enumerate(told):
        kept = np.array([[cells[term] for cells in told] for term in (0, 1)], np.float32)
        assert float((kept[0] + kept[1])[number] * np.float32(0.5)) == weight


def test_the_tied_masks_of_the_table() -> None:
    told = rows(section("Tied masks"), 4)
    assert len(told) > 3
    for size, tie, bits, weights in told:
        told_bits, told_weights = ([int(bit) for bit in text.strip("`")] for text in (bits, weights))
        assert reference.untied(told_bits, [int(size)], int(tie)) == told_weights
        mask = Mask.from_bits(np.array(told_bits, np.bool_), [len(told_bits)])
        assert untied(mask, [int(size)], int(tie)).bits().astype(int).tolist() == told_weights


def test_golden_words() -> None:
    told = re.findall(r"^\| (\d) \| `([0-9a-f]{16})` \|$", section("Random words"), re.MULTILINE)
    assert [(int(i), int(word, 16)) for i, word in told] == [
        (i, generator.word(0x0123456789ABCDEF, i)) for i in range(4)
    ]


def test_golden_logarithms_and_odds() -> None:
    told = [(int(v), int(log)) for v, log in rows(section("Integer logarithms"), 2)]
    assert len(told) > 5
    assert log2.log2(np.array([v for v, _ in told])).tolist() == [log for _, log in told]
    levels = [[int(cell) for cell in row] for row in rows(section("Contexts"), 4)]
    assert len(levels) > 5
    for level, *told_of_level in levels:
        odds = reference.odds(level)
        assert told_of_level == [odds, reference.half_octave(odds), reference.octave(odds)]


def test_golden_codes() -> None:
    table = rows(section("Golden codes"), 3)
    codes = [cells[2].strip("`") for cells in table if cells[2].startswith("`")]
    assert codes == [case["code"] for case in GOLDEN["coded_decisions"]]
    told = [(cells[0], int(cells[1]), int(cells[2])) for cells in table if not cells[2].startswith("`")]
    assert told == example.frequencies()


def test_large_codes() -> None:
    told = {cells[0]: [cell.strip("`") for cell in cells[1:]] for cells in rows(section("Golden codes"), 6)}
    stored = {name: bytes.fromhex(text) for name, text in GOLDEN["large_codes"].items()}
    assert {data[0] for data in stored.values()} == {reference_codes.RANS}
    assert told == {
        name: [
            str(len(data)),
            str(data[1]),
            data[:16].hex(),
            data[-8:].hex(),
            hashlib.sha256(data).hexdigest(),
        ]
        for name, data in stored.items()
    }
    rules = dict(rows(section("Golden codes"), 2))
    assert rules["sizes of the layers"] == ", ".join(map(str, example.LARGE_SIZES))


def test_worked_example() -> None:
    told = {}
    for name, form, block in re.findall(
        r"^`([^`]+)`, (hex|u16|i8|i32).*:\n\n((?:    .*\n)+)", section("Worked example"), re.MULTILINE
    ):
        text = re.sub(r";.*", "", block)
        if form == "hex":
            told[name] = bytes.fromhex(text)
        else:
            numbers = [int(number) for number in text.split()]
            told[name] = struct.pack(
                f"<{len(numbers)}{ {'u16': 'H', 'i8': 'b', 'i32': 'i'}[form] }", *numbers
            )
    stored = {name: bytes.fromhex(text) for name, text in GOLDEN["example"].items()}
    told["spec"] = told["task: query, new client"][3 : 3 + len(stored["spec"])]
    for kind in example.DISTRIBUTIONS:
        assert len(told[f"{kind} weights"]) == 12 * 4
        stored[f"{kind} weights"] = stored[f"{kind} weights"][: 12 * 4]
    assert told == stored


def test_the_example_file() -> None:
    data = (Path(__file__).parent / "example.pemn").read_bytes()
    message, mask, _ = decode_artifact(data)
    *edges, last = map(str, message["start_edges"])
    told = " ".join(section("Worked example").split("**The model**")[1].split())
    assert f"{len(data)} bytes" in told
    assert f"{len(message['start_edges']) + 1} half octaves" in told
    assert f"{', '.join(edges)} and {last}." in told
    assert f"`{message['mask'].hex(' ')}`: the {len(mask)} bits" in told
    assert f"begin with `{data[-32:-28].hex(' ')}`" in told


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", DOCUMENT)) <= anchors


def test_the_sections_that_the_code_names_exist() -> None:
    headings = set(re.findall(r"^#+ (.*)$", DOCUMENT, re.MULTILINE))
    named = {}
    for folder in ("pemn", "server", "client", "protos", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".pyi", ".proto"):
                for name in re.findall(r'docs/wire\.md,\s+(?://\s+)?"([^"]+)"', path.read_text()):
                    named[name] = path.name
    assert len(named) > 8
    assert {name: where for name, where in named.items() if name not in headings} == {}
