"""PEMN's messages against the second implementation's: the same bytes, and the same bytes refused."""

from __future__ import annotations

import hashlib
import math
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemn.artifact import Artifact
from pemn.errors import MalformedArtifact, MalformedFrame
from pemn.onnx.v1 import onnx_pb2
from pemn.wire.messages import Ack, Broadcast, Content, Failure, Metrics, Update, decode, encode
from pemn.wire.model import model_from_proto
from pemn.wire.spec import Spec
from pemn.wire.v1 import messages_pb2
from tests.golden.example import SPEC
from tests.golden.forgery import accepts, damage
from tests.golden.reference import encode_mask, release_contexts
from tests.golden.reference_bytes import Refused
from tests.golden.reference_messages import (
    Message,
    check_model,
    decode_artifact,
    decode_content,
    encode_artifact,
    encode_content,
    value_sizes_of,
)
from tests.golden.reference_messages import encode as encode_message

CONTENTS: list[Content] = [
    Content(broadcast=Broadcast(7, 0, 3, b"h" * 16, b"\x01\x02")),
    Content(broadcast=Broadcast(0, 0, 0, b"h" * 16, b"")),
    Content(update=Update(7, 3, 1, b"h" * 16, b"\x00\xff", b"f" * 8, Metrics(100, 693, 12))),
    Content(update=Update(0, 0, 0, b"h" * 16, b"\x00", b"f" * 8, Metrics(0, 0, 0))),
    Content(ack=Ack(7, 300, 200, b"h" * 16, b"w" * 32)),
    Content(error=Failure(47, "no spec of this run")),
    Content(error=Failure(0, "")),
    Content(spec=Spec.from_bytes(encode_message("Spec", SPEC)), broadcast=Broadcast(7, 0, 0, b"h" * 16, b"")),
]


def sealed(body: bytes) -> bytes:
    """With the check that belongs to these bytes, whatever they are."""
    return body + bytes.fromhex("7a08") + hashlib.sha256(body).digest()[:8]


@pytest.mark.parametrize("content", CONTENTS)
def test_contents(content: Content) -> None:
    data = encode(content)
    assert encode_content(decode_content(data)) == data


@settings(max_examples=400)
@given(st.sampled_from(CONTENTS), st.randoms(use_true_random=False))
def test_the_same_contents_are_refused(content: Content, draw: random.Random) -> None:
    data = encode(content)
    forged = damage(data, draw) if draw.random() < 0.1 else sealed(damage(data[:-10], draw))
    assert accepts(lambda: decode(forged)) == accepts(lambda: decode_content(forged))


UPDATE: Message = {
    "run_id": 7,
    "round": 3,
    "slot": 1,
    "state_hash": b"h" * 16,
    "vote": b"\x00",
    "vote_hash": b"f" * 8,
    "metrics": {},
}
UNKNOWN_FIELD = bytes.fromhex("9a0601ff")  # number 99, one byte


def wrapped(update: bytes) -> bytes:
    """A content with an update of these bytes, fewer than 128."""
    return sealed(b"\x1a" + bytes([len(update)]) + update)


def long_spec() -> Message:
    """Within every bound of its fields, but not of its own."""
    names = [f"{i:0256}" for i in range(5000)]
    model = {**SPEC["model"], "input": {**SPEC["model"]["input"], "class_names": names}}
    return {**SPEC, "model": model}


def reaching_over() -> bytes:
    """A content whose last field takes the check into itself."""
    change = b"x" * 20
    broadcast = {"run_id": 7, "round": 2, "state_hash": b"h" * 16, "change": change + bytes(10)}
    return sealed(encode_message("Content", {"broadcast": broadcast})[:-10])


CARELESS = {
    "unknown field": sealed(encode_message("Content", {"update": UPDATE}) + UNKNOWN_FIELD),
    "no check": encode_message("Content", {"update": UPDATE}),
    "two checks": sealed(encode_content({"update": UPDATE})),
    "check within a field": reaching_over(),
    "unknown field of an update": wrapped(encode_message("Update", UPDATE) + UNKNOWN_FIELD),
    "update without metrics": wrapped(encode_message("Update", {**UPDATE, "metrics": None})),
    "long spec": encode_content({"spec": long_spec(), "broadcast": {"run_id": 7, "state_hash": b"h" * 16}}),
}


@pytest.mark.parametrize("data", CARELESS.values(), ids=CARELESS.keys())
def test_what_a_careless_decoder_takes(data: bytes) -> None:
    with pytest.raises(Refused):
        decode_content(data)
    with pytest.raises(MalformedFrame):
        decode(data)


def test_careful_forgeries_differ_in_one_thing_only() -> None:
    assert decode(wrapped(encode_message("Update", UPDATE))).update is not None
    assert decode_content(wrapped(encode_message("Update", UPDATE)))


BROADCAST: Message = {"run_id": 7, "round": 2, "base_round": 1, "state_hash": b"h" * 16, "change": b"\x01"}
ACK: Message = {"run_id": 7, "round": 3, "slot": 1, "state_hash": b"h" * 16, "weights_sha256": b"w" * 32}
TASK: Message = {"spec": SPEC, "broadcast": BROADCAST}
UP = float(np.nextafter(np.float32(2**20), np.float32(2**21)))
DOWN = float(np.nextafter(np.float32(1000), np.float32(2000)))
ABOVE_100 = float(np.nextafter(np.float32(100), np.float32(200)))
LONG = "ä" * 128  # 256 bytes


def schedule(*numbers: int) -> list[Message]:
    """Of rounds and values in turn."""
    rounds, values = numbers[::2], numbers[1::2]
    return [{"from_round": r, "value": value} for r, value in zip(rounds, values, strict=True)]


def long_schedule(count: int) -> list[Message]:
    return schedule(*(number for i in range(count) for number in (i + 1, i % 2 + 1)))


def finest(stride: int) -> Message:
    return {**SPEC["mask"], "step": 512, "strides": schedule(1, stride)}


SCHEDULES = [schedule(1, 9), schedule(1, 9, 2, 8, 2**31 - 1, 9), long_schedule(256)]
NO_SCHEDULES = [
    [],
    [{}],
    schedule(0, 9),
    schedule(2, 9),
    schedule(1, 0),
    schedule(1, 1, 2, 0),
    schedule(1, 1, 2, 1),
    schedule(1, 1, 1, 2),
    schedule(1, 1, 3, 2, 2, 1),
    schedule(1, 1, 2**31, 2),
    long_schedule(257),
]

# Where in a content, what is taken there, what is not.
BOUNDS: list[tuple[Message, str, list[Any], list[Any]]] = [
    (TASK, "spec.run_id", [0, 2**64 - 1], []),
    (TASK, "spec.model.architecture", ["x", LONG], ["", LONG + "x"]),
    (TASK, "spec.model.seed", [0, 2**64 - 1], []),
    (
        TASK,
        "spec.model.strategy",
        ["full", "rp:1.0", "rp:1e-05"],
        ["", "rp:1", "rp:0.00001", "rp:0.0", "rp:1.5"],
    ),
    (TASK, "spec.model.layers.0.name", ["x", LONG], ["", LONG + "x", "head.weight"]),
    (
        TASK,
        "spec.model.layers.0.shape",
        [[1], [1] * 8, [1 << 14, 1 << 13]],
        [[], [1] * 9, [0], [1 << 14, 1 << 14]],
    ),
    (TASK, "spec.model.layers.0.scale", [1e-45, 2.0**20], [0.0, -1.0, UP, float("inf"), float("nan")]),
    (TASK, "spec.model.layers", [], [[]]),
    (TASK, "spec.model.distribution", ["signed", "uniform", "normal"], ["", "Normal", "signed ", "cauchy"]),
    (TASK, "spec.model.structure", [bytes(16), bytes([255] * 16)], [b"", bytes(15), bytes(17)]),
    (TASK, "spec.model.floats", [[]], [[{"name": "bias", "shape": [3]}]]),
    (
        TASK,
        "spec.model.input.shape",
        [[1, 1, 1], [1, 1 << 14, 1 << 14]],
        [[1, 1], [1, 0, 1], [1, 1 << 15, 1 << 14]],
    ),
    (TASK, "spec.model.input.mean", [[-1e30]], [[], [-0.0], [0.0, 0.0], [float("nan")]]),
    (TASK, "spec.model.input.std", [[1e-30]], [[], [0.0], [-1.0], [float("inf")]]),
    (TASK, "spec.model.input.class_names", [["a", "a"], [LONG]], [[], [""], [LONG + "x"]]),
    (TASK, "spec.model.tie", [1, 2, 256], [0, 257, 2**32 - 1]),
    (TASK, "spec.model.layers.0.terms", [1, 2, 64], [0, 65, 2**32 - 1]),
    (TASK, "spec.protocol_version", [7], [0, 6, 8]),
    (TASK, "spec.num_rounds", [1, 2**31 - 1], [0, 2**31]),
    (TASK, "spec.mask.step", [512, 65535], [0, 511, 65536]),
    (TASK, "spec.mask.eta_nums", [*SCHEDULES, schedule(1, 65535)], [*NO_SCHEDULES, schedule(1, 65536)]),
    (TASK, "spec.mask.eta_den", [1, 65535], [0, 65536]),
    # The example's step is a quarter.
    (TASK, "spec.mask.strides", [schedule(1, 3, 5, 1), schedule(1, 3)], [*NO_SCHEDULES, schedule(1, 4)]),
    (TASK, "spec.mask.window", [1, 4096], [0, 4097]),
    (TASK, "spec.mask.keeps", [schedule(1, 1), schedule(1, 256, 5, 9)], [*NO_SCHEDULES, schedule(1, 257)]),
    (TASK, "spec.mask", [finest(127)], [finest(128)]),
    (
        TASK,
        "spec.mask.start_level_deltas",
        [[], [66], [32768], [66, 0], [66] + [0] * 2047],
        [[65], [32769], [66, 0, 0], [66, 32703], [66] + [0] * 4095, [66, 2**32 - 1]],
    ),
    (TASK, "spec.training.epochs", [1, 10_000], [0, 10_001]),
    (TASK, "spec.training.batch_size", [1, 1 << 20], [0, (1 << 20) + 1]),
    (TASK, "spec.training.learning_rates", SCHEDULES, NO_SCHEDULES),
    (
        TASK,
        "spec.training.learning_rates.0.value",
        [1e-45, 1000.0],
        [0.0, -0.0, -0.1, DOWN, float("inf"), float("nan")],
    ),
    (
        TASK,
        "spec.training.logit_adjustment",
        [0.0, 1e-45, 100.0],
        [-0.0, -1e-45, ABOVE_100, float("inf"), float("nan")],
    ),
    (TASK, "spec.data.dataset", ["x", LONG], ["", LONG + "x"]),
    (
        TASK,
        "spec.data.partition",
        ["own", "classes:1", "classes:999999999", "dirichlet:0.3", "dirichlet:1e+16", "dirichlet:5e-324"],
        [
            "",
            "x",
            "own:",
            "classes:0",
            "classes:1000000000",
            "dirichlet:.3",
            "dirichlet:1",
            "dirichlet:nan",
            LONG,
        ],
    ),
    (TASK, "spec.data.num_slots", [1, 1 << 20], [0, (1 << 20) + 1]),
    (TASK, "spec.data.num_images", [0, 1, 2**32 - 1], []),
    (
        TASK,
        "spec.data",
        [{"dataset": "x", "partition": "dirichlet:0.3", "num_slots": (1 << 17) // 3}],
        [{"dataset": "x", "partition": "dirichlet:0.3", "num_slots": (1 << 17) // 3 + 1}],
    ),
    ({"broadcast": BROADCAST}, "broadcast.round", [2, 2**31 - 1], [0, 2**31]),
    ({"broadcast": BROADCAST}, "broadcast.base_round", [0, 1], [2, 3]),
    ({"broadcast": BROADCAST}, "broadcast.state_hash", [b"x" * 16], [b"", b"x" * 15, b"x" * 17]),
    ({"broadcast": BROADCAST}, "broadcast.change", [b"", b"x" * 1000], []),
    ({"update": UPDATE}, "update.round", [0, 2**31 - 1], [2**31]),
    ({"update": UPDATE}, "update.slot", [0, (1 << 20) - 1], [1 << 20]),
    ({"update": UPDATE}, "update.state_hash", [], [b"", b"x" * 15]),
    ({"update": UPDATE}, "update.vote", [b"x"], [b""]),
    ({"update": UPDATE}, "update.vote_hash", [b"x" * 8, b""], [b"x" * 7, b"x" * 9]),
    ({"update": UPDATE}, "update.metrics", [{"train_ms": 2**32 - 1}], [None]),
    ({"ack": ACK}, "ack.round", [0, 2**31 - 1], [2**31]),
    ({"ack": ACK}, "ack.slot", [0, (1 << 20) - 1], [1 << 20]),
    ({"ack": ACK}, "ack.state_hash", [], [b"x" * 15]),
    ({"ack": ACK}, "ack.weights_sha256", [b"x" * 32], [b"", b"x" * 31, b"x" * 33]),
    ({"error": {}}, "error.code", [0, 2**32 - 1], []),
    ({"error": {}}, "error.text", ["", "ä" * 512], ["ä" * 512 + "x"]),
    (TASK, "broadcast", [], [None]),
    (TASK, "update", [None], [UPDATE]),
    ({"ack": ACK}, "error", [], [{}]),
    ({"error": {}}, "error", [{}], [None]),
]


def changed(value: Any, path: list[str], new: Any) -> Any:
    """A copy with another value at the path."""
    if not path:
        return new
    if isinstance(value, list):
        return [changed(v, path[1:], new) if str(i) == path[0] else v for i, v in enumerate(value)]
    return {**value, path[0]: changed(value.get(path[0]), path[1:], new)}


@pytest.mark.parametrize(("content", "path", "taken", "refused"), BOUNDS, ids=[bound[1] for bound in BOUNDS])
def test_the_bounds_of_every_field(content: Message, path: str, taken: list[Any], refused: list[Any]) -> None:
    for value, right in [(value, True) for value in taken] + [(value, False) for value in refused]:
        data = encode_content(changed(content, path.split("."), value))
        assert accepts(lambda: decode(data)) == right, value  # noqa: B023
        assert accepts(lambda: decode_content(data)) == right, value  # noqa: B023


def spec_of(method: str, tie: int, **fields: float) -> Message:
    spec = {name: value for name, value in SPEC.items() if name != "mask"}
    return {**spec, "model": {**SPEC["model"], "tie": tie}, method: fields}


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        (spec_of("fedpm", 1), True),
        (spec_of("fedpm", 2), False),
        (spec_of("fedpm_counts", 2), False),
        (spec_of("fedavg", 1), True),
        (spec_of("fedavg", 2), False),
        (spec_of("fedavg_int8", 256), False),
        (spec_of("stc", 1, share=0.5), True),
        (spec_of("stc", 2, share=0.5), False),
        (spec_of("fedavg", 1, momentum=0.5), True),
        (spec_of("fedavg", 1, momentum=-0.0), False),
        (spec_of("fedavg_int8", 1, momentum=-0.0), False),
        (spec_of("fedavg", 1, momentum=1.0), False),
        (spec_of("stc", 1, share=0.5, momentum=-0.0), False),
    ],
)
def test_other_methods(spec: Message, taken: bool) -> None:
    data = encode_content({"spec": spec, "broadcast": BROADCAST})
    assert accepts(lambda: decode(data)) == taken
    assert accepts(lambda: decode_content(data)) == taken


def file_with(edges: list[int]) -> bytes:
    """The example's .pemn file with other edges, and the mask as it is coded with them."""
    message, mask, _ = decode_artifact((Path(__file__).parent / "example.pemn").read_bytes())
    model = message["model"]
    code = encode_mask(mask, release_contexts(value_sizes_of(model), model["seed"], edges))
    return encode_artifact({**message, "mask": code, "start_edges": edges})


@pytest.mark.parametrize(
    ("edges", "taken"),
    [
        ([], True),
        ([1], True),
        ([65535], True),
        ([1, 2, 65535], True),
        (list(range(100, 131)), True),
        (list(range(100, 132)), False),
        ([0], False),
        ([65536], False),
        ([9, 9], False),
        ([9, 8], False),
    ],
)
def test_the_edges_of_a_released_mask(edges: list[int], taken: bool) -> None:
    data = file_with(edges)
    assert accepts(lambda: decode_artifact(data)) == taken
    if taken:
        assert Artifact.from_bytes(data).start_edges == tuple(edges)
    else:
        with pytest.raises(MalformedArtifact):
            Artifact.from_bytes(data)


GAIN, BIAS = {"name": "gain"}, {"name": "bias", "shape": [2, 3]}


def file_with_floats(floats: list[Message], data: bytes) -> bytes:
    """The example's .pemn file with floats, and with a skeleton that has these tensors."""
    message, _, skeleton = decode_artifact((Path(__file__).parent / "example.pemn").read_bytes())
    graph = onnx_pb2.Model.FromString(skeleton)
    for tensor in floats:
        shape = tensor.get("shape", [])
        declared = graph.graph.initializer.add(name=tensor.get("name", ""), dims=shape, data_type=1)
        declared.data_location = 1
        declared.external_data.add(key="location", value="pemn.weights")
        declared.external_data.add(key="length", value=str(4 * math.prod(shape)))
    model = {**message["model"], "floats": floats}
    deflate = zlib.compressobj(wbits=-15)
    deflated = deflate.compress(graph.SerializeToString()) + deflate.flush()
    return encode_artifact({**message, "model": model, "onnx_skeleton": deflated, "floats": data})


def float32s(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def named(count: int, **fields: Any) -> list[Message]:
    return [{"name": f"{i:04}", **fields} for i in range(count)]


@pytest.mark.parametrize(
    ("floats", "data", "taken"),
    [
        ([], b"", True),
        ([GAIN], float32s(2.0), True),
        ([GAIN, BIAS], float32s(-0.0, 1e-45, -3.4e38, 0.0, 1.0, 2.0, 3.0), True),
        ([{"name": LONG, "shape": [1] * 8}], bytes(4), True),
        (named(8192, shape=[]), bytes(4 * 8192), True),
        ([], bytes(4), False),
        ([GAIN], b"", False),
        ([GAIN], bytes(3), False),
        ([GAIN], bytes(5), False),
        ([GAIN], bytes(8), False),
        ([BIAS], bytes(20), False),
        ([GAIN], float32s(math.inf), False),
        ([BIAS], float32s(0, 0, 0, -math.inf, 0, 0), False),
        ([BIAS], float32s(0, 0, 0, 0, 0, math.nan), False),
        ([GAIN, GAIN], bytes(8), False),
        ([GAIN, {"name": "head.weight"}], bytes(8), False),
        ([{"name": ""}], bytes(4), False),
        ([{"name": LONG + "x"}], bytes(4), False),
        ([{"name": "x", "shape": [0]}], b"", False),
        ([{"name": "x", "shape": [2, 0]}, GAIN], bytes(4), False),
        ([{"name": "x", "shape": [1] * 9}], bytes(4), False),
        (named(8193), bytes(4 * 8193), False),
    ],
)
def test_the_floats_of_a_file(floats: list[Message], data: bytes, taken: bool) -> None:
    file = file_with_floats(floats, data)
    assert accepts(lambda: decode_artifact(file)) == taken
    if taken:
        artifact = Artifact.from_bytes(file)
        assert artifact.floats == data
        assert artifact.model.num_floats == len(data) // 4
    else:
        with pytest.raises(MalformedArtifact):
            Artifact.from_bytes(file)


@pytest.mark.parametrize(
    ("shapes", "taken"),
    [
        ([[1 << 12, 1 << 12]], True),
        ([[1 << 23], [1 << 23]], True),
        ([[1 << 12, 1 << 12], []], False),
        ([[1 << 23], [1 << 23], [1]], False),
        ([[2**32 - 1] * 8], False),
        ([[2**32 - 1] * 8, [0]], False),
    ],
)
def test_how_many_floats_a_network_may_have(shapes: list[list[int]], taken: bool) -> None:
    floats = [{"name": str(i), "shape": shape} for i, shape in enumerate(shapes)]
    message = {**SPEC["model"], "floats": floats}
    proto = messages_pb2.ModelSpec.FromString(encode_message("ModelSpec", message))
    assert accepts(lambda: check_model(message)) == taken
    assert accepts(lambda: model_from_proto(proto)) == taken


def test_a_file_of_the_version_before_is_refused() -> None:
    data = file_with([])
    body = data[:5] + b"\x04" + data[6:-32]
    old = body + hashlib.sha256(body).digest()
    with pytest.raises(Refused):
        decode_artifact(old)
    with pytest.raises(MalformedArtifact):
        Artifact.from_bytes(old)
