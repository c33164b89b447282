"""PEMN against the second implementation: the same bytes, and the same bytes refused."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn import codec, generator
from pemn.codec import Contexts, rice
from pemn.data.partition import Partition, shards
from pemn.errors import ConfigError, MalformedFrame, RemoteError
from pemn.federation import tally
from pemn.federation.flips import _contexts as flip_contexts
from pemn.federation.flips import decode_votes, encode_flips
from pemn.federation.levels import Levels, arcsine_bucket, dither
from pemn.federation.moves import decode_moves, encode_moves
from pemn.federation.public import PublicState
from pemn.mask import Mask
from pemn.prototype import Source, Strategy, sources
from pemn.rebuild import frozen_weights, rebuild, weights_sha256
from pemn.wire.messages import Ack, Broadcast, Content, Failure, Metrics, Update, decode, encode
from pemn.wire.spec import MaskProtocol, Spec
from tests.golden import reference
from tests.golden.example import SPEC
from tests.golden.reference_messages import Message, check_strategy, decode_content, spell_ratio
from tests.golden.reference_messages import encode as encode_message
from tests.golden.reference_shares import shares
from tests.networks import model_spec

KEYS = st.integers(0, 2**64 - 1)
SHAPES = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4)
RATIOS = st.floats(0, 1, exclude_min=True) | st.sampled_from([1e-4, 1e-5, 0.1, 0.01, 5e-324])


def accepts(read: Callable[[], object]) -> bool:
    try:
        read()
    except (RemoteError, reference.Refused):
        return False
    return True


def numbers(value: NDArray[Any]) -> list[Any]:
    listed: list[Any] = value.astype(int).tolist()
    return listed


def damage(data: bytes, draw: random.Random) -> bytes:
    """Changes bits, cuts, inserts and repeats."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(len(changed) + 1)
        kind = draw.choice(["bit", "byte", "cut", "insert", "twice"])
        if kind == "bit" and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "byte" and at < len(changed):
            changed[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == "cut":
            del changed[at : at + draw.randint(1, 3)]
        elif kind == "insert":
            changed[at:at] = draw.randbytes(draw.randint(1, 3))
        else:
            changed[at:at] = changed[at : at + draw.randint(1, 8)]
    return bytes(changed)


@given(KEYS, st.integers(0, 150), st.lists(KEYS, max_size=3))
def test_random_words(key: int, count: int, path: list[int]) -> None:
    assert generator.child(key, *path) == reference.child(key, *path)
    assert generator.words(key, 0, count).tolist() == [reference.word(key, i) for i in range(count)]
    assert generator.uint16s(key, 0, count).tolist() == reference.integers(key, count)
    assert numbers(generator.signs(key, count)) == reference.signs(key, count)
    assert generator.permutation(key, count).tolist() == reference.permutation(key, count)


@given(
    SHAPES, st.sampled_from(["full", "one-layer", "mp"]) | RATIOS.map(lambda r: f"rp:{r!r}"), KEYS, st.data()
)
def test_weights(shapes: list[tuple[int, ...]], strategy: str, seed: int, data: st.DataObject) -> None:
    model = model_spec(*shapes, strategy=strategy, seed=seed)
    found = sources(Strategy.parse(strategy), shapes)
    assert found == [Source(*source) for source in reference.sources(strategy, shapes)]
    frozen = reference.frozen_weights(seed, strategy, shapes, [layer.scale for layer in model.layers])
    assert frozen_weights(model).tolist() == frozen
    bits = data.draw(st.lists(st.booleans(), min_size=len(frozen), max_size=len(frozen)))
    mask = Mask.from_bits(np.array(bits, np.bool_), model.sizes)
    assert mask.packed.tobytes() == reference.packed_mask([int(bit) for bit in bits], shapes)
    masked = reference.masked(frozen, [int(bit) for bit in bits])
    assert weights_sha256(rebuild(model, mask)) == reference.weights_hash(masked)


@given(RATIOS)
def test_a_ratio_has_one_spelling(ratio: float) -> None:
    assert str(Strategy("rp", ratio)) == f"rp:{spell_ratio(ratio)}"


@given(st.from_regex(re.compile(r"(rp:)?[0-9.]{1,6}(e-?[0-9]{1,2})?|mp|full|one-layer"), fullmatch=True))
def test_the_same_spellings_of_a_strategy_are_taken(text: str) -> None:
    taken = False
    with contextlib.suppress(ConfigError):
        taken = str(Strategy.parse(text)) == text
    assert taken == accepts(lambda: check_strategy(text))


def mask_of(draw: random.Random) -> tuple[list[int], list[int], int]:
    """Bits, contexts and how many contexts there are."""
    count, kinds = draw.choice([0, 1, 7, 8, 9, 30, 64, 200, 700]), draw.randint(1, 12)
    shares = [draw.choice([0, 0.005, 0.05, 0.3, 0.5, 0.97, 1]) for _ in range(kinds)]
    contexts = [draw.randrange(kinds) for _ in range(count)]
    return [int(draw.random() < shares[context]) for context in contexts], contexts, kinds


@settings(max_examples=120)
@given(st.randoms(use_true_random=False), st.booleans())
def test_coded_masks(draw: random.Random, has_contexts: bool) -> None:
    bits, ids, kinds = mask_of(draw)
    array = np.array(ids, np.uint8)
    contexts = Contexts(kinds, lambda start, stop: array[start:stop]) if has_contexts else None
    known = ids if has_contexts else None
    code = codec.encode(np.array(bits, np.bool_), contexts)
    assert code == reference.encode_mask(bits, known)
    assert reference.decode_mask(code, len(bits), known) == bits
    forged = damage(code, draw)
    taken = accepts(lambda: codec.decode(forged, len(bits), contexts))
    assert taken == accepts(lambda: reference.decode_mask(forged, len(bits), known))
    if taken:
        assert numbers(codec.decode(forged, len(bits), contexts)) == reference.decode_mask(
            forged, len(bits), known
        )


def test_every_short_group_has_the_same_rice_code() -> None:
    draw = random.Random(1)
    every = [[number >> i & 1 for i in range(size)] for size in range(1, 12) for number in range(1 << size)]
    sparse = [[int(draw.random() < 0.15) for _ in range(draw.randint(12, 60))] for _ in range(2000)]
    for bits in every + sparse:
        groups = [list(range(len(bits)))]
        code = rice.encode(np.array(bits, np.bool_), [np.arange(len(bits))])
        assert code == reference._encode_rice(bits, groups), bits


def rule(draw: random.Random, num_params: int) -> tuple[reference.Rule, Levels]:
    size = draw.choice([0, 1, 2, 8, 64])
    lower = tuple(sorted(draw.randint(66, 32768) for _ in range(size)))
    step, eta_num, eta_den = (draw.choice([1, 77, 4096, 32768, 65535]) for _ in range(3))
    seed = draw.getrandbits(64)
    levels = Levels(MaskProtocol(step, eta_num, eta_den, lower), seed, num_params)
    return reference.Rule(seed, num_params, step, eta_num, eta_den, lower), levels


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(1, 4))
def test_a_round(draw: random.Random, num_params: int, num_votes: int) -> None:
    plain, levels = rule(draw, num_params)
    k = [draw.choice([0, 0, 1, -1, draw.randint(-127, 127)]) for _ in range(num_params)]
    array = np.array(k, np.int8)
    q = levels.at(array)
    assert q.tolist() == plain.q(k)
    round_, run_id = draw.randint(0, 2**31 - 2), draw.getrandbits(64)
    assert PublicState(round_, array).hash(run_id) == reference.state_hash(run_id, round_, k)
    assert numbers(PublicState(round_, array).mask(levels, (num_params,)).bits()) == reference.state_mask(
        plain.q(k)
    )

    votes, plain_votes = [], []
    for slot in range(num_votes):
        u = dither(levels.seed, round_ + 1, slot, num_params)
        assert u.tolist() == plain.dither(round_ + 1, slot)
        p = [draw.choice([q_i, draw.randint(66, 65470)]) for q_i in q.tolist()]
        flips = encode_flips(np.array(p, np.uint16), q, u)
        assert flips == reference.encode_flips(p, plain.q(k), u.tolist())
        votes.append(decode_votes(flips, q, u))
        plain_votes.append(reference.decode_votes(flips, plain.q(k), u.tolist()))
        assert votes[-1].tolist() == plain_votes[-1]

    p_hat = [draw.randint(0, 1 << 24) for _ in range(num_params)]
    edges = [256 * q_i + draw.choice([-128, 128]) * plain.step + draw.randint(-1, 1) for q_i in q.tolist()]
    at_edges = np.array(edges, np.int32).clip(0, 1 << 24)  # of the dead zone
    assert tally.settle(levels.protocol, at_edges, array, q).tolist() == reference.settle(
        plain, at_edges.tolist(), k
    )
    learnt = tally.learn(levels.protocol, np.array(p_hat, np.int32), votes)
    assert learnt.tolist() == reference.learn(plain, p_hat, plain_votes)
    settled = tally.settle(levels.protocol, learnt, array, q)
    assert settled.tolist() == reference.settle(plain, learnt.tolist(), k)


@settings(max_examples=50)
@given(st.randoms(use_true_random=False), st.integers(0, 60), st.sampled_from([0, 1, 3, 254]))
def test_moves(draw: random.Random, num_params: int, farthest: int) -> None:
    share = draw.random()
    moved = [draw.randint(-farthest, farthest) if draw.random() < share else 0 for _ in range(num_params)]
    base = np.array([draw.randint(66, 65470) for _ in range(num_params)], np.uint16)
    data = encode_moves(np.array(moved, np.int16), base)
    assert data == reference.encode_moves(moved, base.tolist())
    assert reference.decode_moves(data, base.tolist()) == moved
    forged = damage(data, draw)
    taken = accepts(lambda: decode_moves(forged, base))
    assert taken == accepts(lambda: reference.decode_moves(forged, base.tolist()))
    if taken:
        assert decode_moves(forged, base).tolist() == reference.decode_moves(forged, base.tolist())


def test_moves_with_too_many_planes_are_refused() -> None:
    base = [3000, 30_000, 60_000]
    contexts = reference.move_contexts(base)
    some, down, none = ([1, 1, 0], contexts), ([0, 1], contexts[:2]), ([0, 0], contexts[:2])

    def moves(planes: int, *masks: tuple[list[int], list[int]]) -> bytes:
        coded = [reference.encode_mask(bits, known) for bits, known in masks]
        return bytes([planes]) + b"".join(reference.varint(len(code)) + code for code in coded)

    array = np.array(base, np.uint16)
    assert decode_moves(moves(1, some, down), array).tolist() == [1, -1, 0]
    for forged in (moves(2, some, down, none), moves(1, some, down, none), moves(1, some), moves(0)):
        assert not accepts(lambda: decode_moves(forged, array))  # noqa: B023
        assert not accepts(lambda: reference.decode_moves(forged, base))  # noqa: B023


def test_every_probability_and_distance_has_the_same_context() -> None:
    every = np.arange(65536, dtype=np.uint16)
    assert arcsine_bucket(every).tolist() == reference.move_contexts(every.tolist())
    for q in (66, 30_000, 65_470):
        levels = np.full(65536, q, np.uint16)
        ids = flip_contexts(levels, every).ids(0, 65536)
        assert ids.tolist() == reference.flip_contexts(levels.tolist(), every.tolist())


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=9, max_size=60),
    st.integers(1, 9),
    KEYS,
    st.sampled_from(["iid", "classes:1", "classes:2", "dirichlet:0.05", "dirichlet:0.3", "dirichlet:3"]),
)
def test_shares_of_the_data(labels: list[int], num_slots: int, seed: int, partition: str) -> None:
    if partition == "classes:2" and len(set(labels)) < 2:
        return
    found = shards(Partition.parse(partition), np.array(labels, np.int64), num_slots, seed)
    assert [share.tolist() for share in found] == shares(partition, labels, num_slots, seed)


CONTENTS: list[Content] = [
    Content(broadcast=Broadcast(7, 0, 3, b"h" * 16, b"\x01\x02")),
    Content(broadcast=Broadcast(0, 0, 0, b"h" * 16, b"")),
    Content(update=Update(7, 3, 1, b"h" * 16, b"\x00\xff", Metrics(100, 693, 12))),
    Content(update=Update(0, 0, 0, b"h" * 16, b"\x00", Metrics(0, 0, 0))),
    Content(ack=Ack(7, 300, 200, b"h" * 16, b"w" * 32)),
    Content(error=Failure(47, "no spec of this run")),
    Content(error=Failure(0, "")),
    Content(spec=Spec.from_bytes(encode_message("Spec", SPEC)), broadcast=Broadcast(7, 0, 0, b"h" * 16, b"")),
]


@pytest.mark.parametrize("content", CONTENTS)
def test_contents(content: Content) -> None:
    data = encode(content)
    assert encode_message("Content", decode_content(data)) == data


@settings(max_examples=400)
@given(st.sampled_from(CONTENTS), st.randoms(use_true_random=False))
def test_the_same_contents_are_refused(content: Content, draw: random.Random) -> None:
    forged = damage(encode(content), draw)
    assert accepts(lambda: decode(forged)) == accepts(lambda: decode_content(forged))


UPDATE: Message = {
    "run_id": 7,
    "round": 3,
    "slot": 1,
    "state_hash": b"h" * 16,
    "flips": b"\x00",
    "metrics": {},
}
UNKNOWN_FIELD = bytes.fromhex("9a0601ff")  # number 99, one byte


def wrapped(update: bytes) -> bytes:
    """A content with an update of these bytes, fewer than 128."""
    return b"\x1a" + bytes([len(update)]) + update


def long_spec() -> Message:
    """Within every bound of its fields, but not of its own."""
    names = [f"{i:0256}" for i in range(5000)]
    model = {**SPEC["model"], "input": {**SPEC["model"]["input"], "class_names": names}}
    return {**SPEC, "model": model}


CARELESS = {
    "unknown field": encode_message("Content", {"update": UPDATE}) + UNKNOWN_FIELD,
    "unknown field of an update": wrapped(encode_message("Update", UPDATE) + UNKNOWN_FIELD),
    "update without metrics": wrapped(encode_message("Update", {**UPDATE, "metrics": None})),
    "long spec": encode_message(
        "Content", {"spec": long_spec(), "broadcast": {"run_id": 7, "state_hash": b"h" * 16}}
    ),
}


@pytest.mark.parametrize("data", CARELESS.values(), ids=CARELESS.keys())
def test_what_a_careless_decoder_takes(data: bytes) -> None:
    with pytest.raises(reference.Refused):
        decode_content(data)
    with pytest.raises(MalformedFrame):
        decode(data)


def test_careful_forgeries_differ_in_one_thing_only() -> None:
    assert decode(wrapped(encode_message("Update", UPDATE))).update is not None
    assert decode_content(wrapped(encode_message("Update", UPDATE)))


BROADCAST: Message = {"run_id": 7, "round": 2, "base_round": 1, "state_hash": b"h" * 16, "moves": b"\x01"}
ACK: Message = {"run_id": 7, "round": 3, "slot": 1, "state_hash": b"h" * 16, "weights_sha256": b"w" * 32}
TASK: Message = {"spec": SPEC, "broadcast": BROADCAST}
DOWN = float(np.nextafter(np.float32(1000), np.float32(2000)))
LONG = "ä" * 128  # 256 bytes

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
    (TASK, "spec.model.layers.0.scale", [1e-45, 3e38], [0.0, -1.0, float("inf"), float("nan")]),
    (TASK, "spec.model.layers", [], [[]]),
    (
        TASK,
        "spec.model.input.shape",
        [[1, 1, 1], [1, 1 << 14, 1 << 14]],
        [[1, 1], [1, 0, 1], [1, 1 << 15, 1 << 14]],
    ),
    (TASK, "spec.model.input.mean", [[-1e30]], [[], [0.0, 0.0], [float("nan")]]),
    (TASK, "spec.model.input.std", [[1e-30]], [[], [0.0], [-1.0], [float("inf")]]),
    (TASK, "spec.model.input.class_names", [["a", "a"], [LONG]], [[], [""], [LONG + "x"]]),
    (TASK, "spec.protocol_version", [1], [0, 2]),
    (TASK, "spec.protocol.step", [1, 65535], [0, 65536]),
    (TASK, "spec.protocol.eta_num", [1, 65535], [0, 65536]),
    (TASK, "spec.protocol.eta_den", [1, 65535], [0, 65536]),
    (
        TASK,
        "spec.protocol.start_level_deltas",
        [[], [66], [32768], [66, 0], [66] + [0] * 2047],
        [[65], [32769], [66, 0, 0], [66, 32703], [66] + [0] * 4095, [66, 2**32 - 1]],
    ),
    (TASK, "spec.training.epochs", [1, 10_000], [0, 10_001]),
    (TASK, "spec.training.batch_size", [1, 1 << 20], [0, (1 << 20) + 1]),
    (TASK, "spec.training.learning_rate", [1e-45, 1000.0], [0.0, -0.1, DOWN, float("nan")]),
    (TASK, "spec.data.dataset", ["x", LONG], ["", LONG + "x"]),
    (TASK, "spec.data.partition", ["x", LONG], ["", LONG + "x"]),
    (TASK, "spec.data.num_slots", [1, 1 << 20], [0, (1 << 20) + 1]),
    ({"broadcast": BROADCAST}, "broadcast.round", [2, 2**31 - 1], [0, 2**31]),
    ({"broadcast": BROADCAST}, "broadcast.base_round", [0, 1], [2, 3]),
    ({"broadcast": BROADCAST}, "broadcast.state_hash", [b"x" * 16], [b"", b"x" * 15, b"x" * 17]),
    ({"broadcast": BROADCAST}, "broadcast.moves", [b"", b"x" * 1000], []),
    ({"update": UPDATE}, "update.round", [0, 2**31 - 1], [2**31]),
    ({"update": UPDATE}, "update.slot", [0, (1 << 20) - 1], [1 << 20]),
    ({"update": UPDATE}, "update.state_hash", [], [b"", b"x" * 15]),
    ({"update": UPDATE}, "update.flips", [b"x"], [b""]),
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
    for value in taken + refused:
        data = encode_message("Content", changed(content, path.split("."), value))
        assert accepts(lambda: decode(data)) == (value in taken), value  # noqa: B023
        assert accepts(lambda: decode_content(data)) == (value in taken), value  # noqa: B023
