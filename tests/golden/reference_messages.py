"""The second implementation's messages: protobuf in canonical form, the checks of docs/wire.md, the .pemn file.

A message is a dictionary by field names; a field that is left out has its default. No protobuf library.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from tests.golden.reference import Rule, bit_sizes, decode_mask, release_contexts
from tests.golden.reference_bytes import Reader, Refused, check, varint

Message = dict[str, Any]

MAX_PARAMS, MAX_FLOATS, MAX_ROUND, MAX_SLOTS, MAX_TEXT = 1 << 28, 1 << 24, (1 << 31) - 1, 1 << 20, 256

# Field number, name and type, from the tables of the document; `*` is a list, `?` a message that may be missing.
SCHEMA: dict[str, list[tuple[int, str, str]]] = {
    "Layer": [(1, "name", "string"), (2, "shape", "uint32*"), (3, "scale", "float"), (4, "terms", "uint32")],
    "FloatTensor": [(1, "name", "string"), (2, "shape", "uint32*")],
    "InputContract": [
        (1, "shape", "uint32*"),
        (2, "mean", "float*"),
        (3, "std", "float*"),
        (4, "class_names", "string*"),
    ],
    "ModelSpec": [
        (1, "architecture", "string"),
        (2, "input", "InputContract"),
        (3, "layers", "Layer*"),
        (4, "seed", "fixed64"),
        (5, "strategy", "string"),
        (6, "distribution", "string"),
        (7, "floats", "FloatTensor*"),
        (8, "structure", "bytes"),
        (9, "tie", "uint32"),
    ],
    "Count": [(1, "from_round", "uint32"), (2, "value", "uint32")],
    "Rate": [(1, "from_round", "uint32"), (2, "value", "float")],
    "MaskProtocol": [
        (1, "step", "uint32"),
        (2, "eta_nums", "Count*"),
        (3, "eta_den", "uint32"),
        (4, "start_level_deltas", "uint32*"),
        (5, "strides", "Count*"),
        (6, "window", "uint32"),
        (7, "keeps", "Count*"),
    ],
    "FedPMProtocol": [(1, "start_level_deltas", "uint32*")],
    "FedAvgProtocol": [(1, "momentum", "float")],
    "StcProtocol": [(1, "momentum", "float"), (2, "share", "float")],
    "LocalTraining": [
        (1, "epochs", "uint32"),
        (2, "batch_size", "uint32"),
        (3, "learning_rates", "Rate*"),
        (4, "logit_adjustment", "float"),
    ],
    "DataPlan": [
        (1, "dataset", "string"),
        (2, "partition", "string"),
        (3, "num_slots", "uint32"),
        (4, "num_images", "uint32"),
    ],
    "Spec": [
        (1, "protocol_version", "uint32"),
        (2, "run_id", "fixed64"),
        (3, "model", "ModelSpec"),
        (4, "mask", "MaskProtocol?"),
        (5, "training", "LocalTraining"),
        (6, "data", "DataPlan"),
        (7, "fedpm", "FedPMProtocol?"),
        (8, "fedpm_counts", "FedPMProtocol?"),
        (9, "fedavg", "FedAvgProtocol?"),
        (10, "fedavg_int8", "FedAvgProtocol?"),
        (11, "stc", "StcProtocol?"),
        (12, "num_rounds", "uint32"),
    ],
    "Broadcast": [
        (1, "run_id", "fixed64"),
        (2, "base_round", "uint32"),
        (3, "round", "uint32"),
        (4, "state_hash", "bytes"),
        (5, "change", "bytes"),
    ],
    "Metrics": [(1, "num_images", "uint32"), (2, "loss_milli", "uint32"), (3, "train_ms", "uint32")],
    "Update": [
        (1, "run_id", "fixed64"),
        (2, "round", "uint32"),
        (3, "slot", "uint32"),
        (4, "state_hash", "bytes"),
        (5, "vote", "bytes"),
        (6, "vote_hash", "bytes"),
        (7, "metrics", "Metrics"),
        (8, "signature", "bytes"),
    ],
    "Ack": [
        (1, "run_id", "fixed64"),
        (2, "round", "uint32"),
        (3, "slot", "uint32"),
        (4, "state_hash", "bytes"),
        (5, "weights_sha256", "bytes"),
    ],
    "Error": [(1, "code", "uint32"), (2, "text", "string")],
    "Content": [
        (1, "spec", "Spec?"),
        (2, "broadcast", "Broadcast?"),
        (3, "update", "Update?"),
        (4, "ack", "Ack?"),
        (5, "error", "Error?"),
        (15, "check", "bytes"),
    ],
    "Artifact": [
        (1, "model", "ModelSpec"),
        (2, "mask", "bytes"),
        (3, "onnx_skeleton", "bytes"),
        (4, "weights_sha256", "bytes"),
        (5, "provenance", "Entry*"),
        (6, "start_edges", "uint32*"),
        (7, "floats", "bytes"),
    ],
    "Entry": [(1, "key", "string"), (2, "value", "string")],
    "Hello": [
        (1, "protocol_version", "uint32"),
        (2, "client_id", "bytes"),
        (3, "slot", "uint32"),
        (4, "num_slots", "uint32"),
    ],
    "Part": [
        (1, "message_id", "fixed64"),
        (2, "size", "uint32"),
        (3, "action", "string"),
        (4, "offset", "uint32"),
        (5, "data", "bytes"),
    ],
    "Challenge": [(1, "nonce", "bytes")],
    "Proof": [(1, "signature", "bytes")],
    "SessionRequest": [(1, "hello", "Hello?"), (2, "part", "Part?"), (3, "proof", "Proof?")],
    "SessionResponse": [
        (1, "welcome", "Welcome?"),
        (2, "part", "Part?"),
        (3, "refusal", "Error?"),
        (4, "goodbye", "Goodbye?"),
        (5, "challenge", "Challenge?"),
    ],
    "Welcome": [],
    "Goodbye": [],
}

_WIRE_TYPES = {"uint32": 0, "fixed64": 1, "float": 5}  # all others: 2, with a length


def _encode_value(kind: str, value: Any) -> bytes:
    if kind == "uint32":
        return varint(value)
    if kind == "fixed64":
        return struct.pack("<Q", value)
    if kind == "float":
        return struct.pack("<f", value)
    if kind == "string":
        value = value.encode()
    elif kind != "bytes":
        value = encode(kind, value)
    return varint(len(value)) + bytes(value)


def _encode_field(number: int, kind: str, value: Any) -> bytes:
    return varint(8 * number + _WIRE_TYPES.get(kind, 2)) + _encode_value(kind, value)


def encode(name: str, message: Message) -> bytes:
    out = b""
    for number, field, kind in SCHEMA[name]:
        value, single = message.get(field), kind.rstrip("*?")
        if kind.endswith("*"):
            if single in _WIRE_TYPES and value:
                packed = b"".join(_encode_value(single, element) for element in value)
                out += _encode_field(number, "bytes", packed)
            else:
                out += b"".join(_encode_field(number, single, element) for element in value or [])
        elif single in SCHEMA:
            if value is not None:
                out += _encode_field(number, single, value)
        elif value or name == "Entry" or str(value) == "-0.0":
            out += _encode_field(number, single, value)
    return out


def _read_raw(reader: Reader, wire_type: int) -> Any:
    if wire_type == 0:
        return reader.varint()
    if wire_type in (1, 5):
        return reader.take(8 if wire_type == 1 else 4)
    check(wire_type == 2, "type of a field")
    return reader.take(reader.varint())


def _decode_value(kind: str, raw: Any) -> Any:
    if kind == "uint32":
        check(raw < 1 << 32, "uint32")
        return raw
    if kind == "fixed64":
        return struct.unpack("<Q", raw)[0]
    if kind == "float":
        return struct.unpack("<f", raw)[0]
    if kind == "string":
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise Refused("text") from error
    return raw if kind == "bytes" else decode(kind, raw)


def decode(name: str, data: bytes) -> Message:
    """Reads canonical bytes; the values are not checked."""
    message: Message = {}
    fields = {number: (field, kind) for number, field, kind in SCHEMA[name]}
    reader = Reader(data)
    while reader.data:
        number, wire_type = divmod(reader.varint(), 8)
        check(number in fields, "field that the document does not name")
        field, kind = fields[number]
        single = kind.rstrip("*?")
        is_packed = kind.endswith("*") and single in _WIRE_TYPES
        check(wire_type == (2 if is_packed else _WIRE_TYPES.get(single, 2)), "type of a field")
        raw = _read_raw(reader, wire_type)
        if is_packed:
            inner, values = Reader(raw), message.setdefault(field, [])
            while inner.data:
                values.append(_decode_value(single, _read_raw(inner, _WIRE_TYPES[single])))
        elif kind.endswith("*"):
            message.setdefault(field, []).append(_decode_value(single, raw))
        else:
            message[field] = _decode_value(single, raw)
    check(encode(name, message) == data, "canonical form")
    return message


# The ranges of the fields.


def _within(message: Message, field: str, low: int, high: int) -> None:
    check(low <= message.get(field, 0) <= high, field)


def _text(text: str, longest: int = MAX_TEXT, shortest: int = 1) -> None:
    check(shortest <= len(text.encode()) <= longest, "length of a text")


def _finite(values: list[float]) -> None:
    check(all(math.isfinite(value) for value in values), "float")


def spell(number: float) -> str:
    """The shortest digits, in the document's spelling."""
    exact = Fraction(number)
    exponent = math.floor(math.log10(number))
    exponent += (exact >= Fraction(10) ** (exponent + 1)) - (exact < Fraction(10) ** exponent)
    for count in range(1, 18):
        unit = Fraction(10) ** (exponent - count + 1)
        below = math.floor(exact / unit)
        fitting = [digits for digits in (below, below + 1) if _rounded(digits * unit) == number]
        if fitting:
            digits = min(fitting, key=lambda digits: abs(digits * unit - exact))
            break
    if 0.0001 <= number < 1e16:
        return f"{Decimal(digits).scaleb(exponent - count + 1):.{max(count - 1 - exponent, 1)}f}"
    text = str(digits).rstrip("0")
    exponent += len(str(digits)) - count  # 99.. + 1 has a digit more
    return f"{text[0]}{'.' if text[1:] else ''}{text[1:]}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"


def _rounded(exact: Fraction) -> float:
    try:
        return float(exact)
    except OverflowError:
        return math.inf


def check_strategy(text: str) -> None:
    if text in ("full", "one-layer", "mp"):
        return
    try:
        ratio = float(text.removeprefix("rp:"))
    except ValueError as error:
        raise Refused("strategy") from error
    check(text.startswith("rp:") and 0 < ratio <= 1, "strategy")
    check(text == f"rp:{spell(ratio)}", "spelling of the strategy")


def check_partition(text: str, num_slots: int, num_classes: int) -> None:
    kind, colon, number = text.partition(":")
    if kind in ("own", "iid"):
        check(not colon, "partition")
    elif kind == "classes":
        digits = set("0123456789")
        check(1 <= len(number) <= 9 and set(number) <= digits and number[0] != "0", "classes of a slot")
    else:
        check(kind == "dirichlet", "partition")
        try:
            alpha = float(number)
        except ValueError as error:
            raise Refused("partition") from error
        check(0 < alpha < math.inf and number == spell(alpha), "spelling of the partition")
        check(num_slots * num_classes <= 1 << 17, "gamma variates")


def check_model(model: Message) -> None:
    _text(model.get("architecture", ""))
    layers = model.get("layers", [])
    check(1 <= len(layers) <= 4096, "number of layers")
    for layer in layers:
        _text(layer.get("name", ""))
        shape = layer.get("shape", [])
        check(1 <= len(shape) <= 8 and min(shape) >= 1, "shape of a layer")
        scale = layer.get("scale", 0.0)
        check(0 < scale <= 1 << 20, "scale")
        _within(layer, "terms", 1, 64)
    check(sum(value_sizes_of({"layers": layers})) <= MAX_PARAMS, "number of values")
    floats = model.get("floats", [])
    check(len(floats) <= 8192, "number of float tensors")
    for tensor in floats:
        _text(tensor.get("name", ""))
        shape = tensor.get("shape", [])
        check(len(shape) <= 8 and 0 not in shape, "shape of floats")
    check(num_floats(model) <= MAX_FLOATS, "number of floats")
    tensors = layers + floats
    check(len({tensor["name"] for tensor in tensors}) == len(tensors), "names of tensors")
    contract = model.get("input", {})
    shape, mean, std = (contract.get(name, []) for name in ("shape", "mean", "std"))
    check(len(shape) == 3 and 1 <= shape[0] <= 64 and 1 <= math.prod(shape) <= MAX_PARAMS, "input")
    check(len(mean) == len(std) == shape[0] and min(std) > 0, "mean and std")
    _finite(mean + std)
    check(all(math.copysign(1, value) > 0 for value in mean if value == 0), "mean of -0.0")
    names = contract.get("class_names", [])
    check(1 <= len(names) <= 32768, "number of classes")
    for name in names:
        _text(name)
    check_strategy(model.get("strategy", ""))
    check(model.get("distribution") in ("signed", "uniform", "normal"), "distribution")
    check(len(model.get("structure", b"")) == 16, "structure")
    _within(model, "tie", 1, 256)


def num_floats(model: Message) -> int:
    return sum(math.prod(tensor.get("shape", [])) for tensor in model.get("floats", []))


def levels_of(protocol: Message) -> tuple[int, ...]:
    levels, level = [], 0
    for delta in protocol.get("start_level_deltas", []):
        level += delta
        levels.append(level)
    return tuple(levels)


def check_schedule(changes: list[Message], least: float, most: float) -> None:
    """Floats are above 0, whatever the least."""
    check(1 <= len(changes) <= 256, "changes of a schedule")
    rounds, values = zip(*((c.get("from_round", 0), c.get("value", 0)) for c in changes), strict=True)
    check(rounds[0] == 1 and rounds[-1] <= MAX_ROUND, "rounds of a schedule")
    check(all(a < b for a, b in pairwise(rounds)), "order of a schedule")
    check(all(a != b for a, b in pairwise(values)), "change that changes nothing")
    check(all(least <= value <= most and value > 0 for value in values), "values of a schedule")


METHODS = {"mask", "fedpm", "fedpm_counts", "fedavg", "fedavg_int8", "stc"}


def check_spec(spec: Message) -> None:
    check(spec.get("protocol_version") == 7, "protocol version")
    check_model(spec.get("model", {}))
    check("floats" not in spec["model"], "floats in a federation")
    training, data = (spec.get(name, {}) for name in ("training", "data"))
    check(len(METHODS & set(spec)) == 1, "one method")
    _within(spec, "num_rounds", 1, MAX_ROUND)
    if "mask" in spec:
        protocol = spec["mask"]
        for field, least, most in (("step", 512, 65535), ("eta_den", 1, 65535), ("window", 1, 4096)):
            _within(protocol, field, least, most)
        check_schedule(protocol.get("eta_nums", []), 1, 65535)
        check_schedule(protocol.get("keeps", []), 1, 256)
        check_schedule(protocol.get("strides", []), 1, min(127, 65535 // protocol["step"]))
    else:
        check(spec["model"]["tie"] == 1, "tie of another method")
        check(all(layer["terms"] == 1 for layer in spec["model"]["layers"]), "sums of another method")
    for name in {"mask", "fedpm", "fedpm_counts"} & set(spec):
        levels = levels_of(spec[name])
        check(len(levels) in (0, *(1 << i for i in range(12))), "number of start levels")
        check(not levels or (levels[0] >= 66 and levels[-1] <= 32768), "start levels")
    for name in {"fedavg", "fedavg_int8", "stc"} & set(spec):
        momentum = spec[name].get("momentum", 0.0)
        check(0 <= momentum < 1 and math.copysign(1, momentum) > 0, "momentum")
    check("stc" not in spec or 0 < spec["stc"].get("share", 0.0) <= 1, "share")
    _within(training, "epochs", 1, 10_000)
    _within(training, "batch_size", 1, 1 << 20)
    check_schedule(training.get("learning_rates", []), 0, 1000)
    adjustment = training.get("logit_adjustment", 0.0)
    check(0 <= adjustment <= 100 and math.copysign(1, adjustment) > 0, "logit adjustment")
    _text(data.get("dataset", ""))
    _within(data, "num_slots", 1, MAX_SLOTS)
    names = spec["model"]["input"]["class_names"]
    check_partition(data.get("partition", ""), data["num_slots"], len(names))
    check(len(encode("Spec", spec)) <= 1 << 20, "length of the spec")


def check_broadcast(broadcast: Message) -> None:
    _within(broadcast, "round", 0, MAX_ROUND)
    _within(broadcast, "base_round", 0, broadcast.get("round", 0))
    check(len(broadcast.get("state_hash", b"")) == 16, "state hash")
    still = broadcast.get("base_round", 0) == broadcast.get("round", 0)
    check(not (still and broadcast.get("change")), "change from a round to itself")


def _check_answer(answer: Message) -> None:
    _within(answer, "round", 0, MAX_ROUND)
    _within(answer, "slot", 0, MAX_SLOTS - 1)
    check(len(answer.get("state_hash", b"")) == 16, "state hash")


def check_update(update: Message) -> None:
    _check_answer(update)
    check(len(update.get("vote", b"")) > 0, "vote")
    check(len(update.get("vote_hash", b"")) in (0, 8), "hash of the vote")
    check(len(update.get("signature", b"")) in (0, 64), "signature")
    check("metrics" in update, "metrics")


def check_ack(ack: Message) -> None:
    _check_answer(ack)
    check(len(ack.get("weights_sha256", b"")) == 32, "hash of the weights")


def check_error(error: Message) -> None:
    _text(error.get("text", ""), 1024, 0)


_CHECKS: dict[str, Callable[[Message], None]] = {
    "spec": check_spec,
    "broadcast": check_broadcast,
    "update": check_update,
    "ack": check_ack,
    "error": check_error,
}


def encode_content(content: Message) -> bytes:
    """With its check."""
    body = encode("Content", content)
    return body + encode("Content", {"check": hashlib.sha256(body).digest()[:8]})


def decode_content(data: bytes) -> Message:
    """Without its check."""
    content = decode("Content", data)
    found = content.pop("check", None)
    check(found == hashlib.sha256(encode("Content", content)).digest()[:8], "check of a content")
    allowed = ({"broadcast"}, {"spec", "broadcast"}, {"update"}, {"ack"}, {"error"})
    check(set(content) in allowed, "fields of a content")
    for name, message in content.items():
        _CHECKS[name](message)
    return content


def value_sizes_of(model: Message) -> tuple[int, ...]:
    return tuple(layer["terms"] * math.prod(layer["shape"]) for layer in model["layers"])


def bit_sizes_of(model: Message) -> tuple[int, ...]:
    return bit_sizes(value_sizes_of(model), model["tie"])


def rule_of(spec: Message) -> Rule:
    model, protocol = spec["model"], spec["mask"]
    eta_nums, strides, keeps = (
        tuple((change["from_round"], change["value"]) for change in protocol[name])
        for name in ("eta_nums", "strides", "keeps")
    )
    return Rule(
        seed=model.get("seed", 0),
        sizes=bit_sizes_of(model),
        step=protocol["step"],
        eta_nums=eta_nums,
        eta_den=protocol["eta_den"],
        lower_levels=levels_of(protocol),
        strides=strides,
        window=protocol["window"],
        keeps=keeps,
    )


# The .pemn file


def encode_artifact(artifact: Message) -> bytes:
    body = b"PEMN\x00\x06" + encode("Artifact", artifact)
    return body + hashlib.sha256(body).digest()


def decode_artifact(data: bytes) -> tuple[Message, list[int], bytes]:
    """Message, mask bits and inflated skeleton."""
    body, digest = data[:-32], data[-32:]
    check(body.startswith(b"PEMN\x00\x06") and hashlib.sha256(body).digest() == digest, "frame")
    artifact = decode("Artifact", body[6:])
    check_model(artifact.get("model", {}))
    check(len(artifact.get("weights_sha256", b"")) == 32, "hash of the weights")
    check(len(encode("ModelSpec", artifact["model"])) <= 1 << 20, "length of the model")
    edges = artifact.get("start_edges", [])
    check(len(edges) <= 31 and all(1 <= edge <= 65535 for edge in edges), "start edges")
    check(edges == sorted(set(edges)), "order of the start edges")
    inflate = zlib.decompressobj(wbits=-15)
    skeleton = inflate.decompress(artifact.get("onnx_skeleton", b""))
    check(inflate.eof and not inflate.unused_data, "end of the skeleton")
    floats = artifact.get("floats", b"")
    check(len(floats) == 4 * num_floats(artifact["model"]), "bytes of floats")
    _finite(list(struct.unpack(f"<{len(floats) // 4}f", floats)))
    entries = artifact.get("provenance", [])
    keys = [entry["key"].encode() for entry in entries]
    check(len(keys) <= 64 and keys == sorted(set(keys)), "provenance")
    for entry in entries:
        _text(entry["key"])
        _text(entry["value"], 1024, 0)
    contexts = release_contexts(bit_sizes_of(artifact["model"]), artifact["model"].get("seed", 0), edges)
    return artifact, decode_mask(artifact.get("mask", b""), contexts), skeleton
