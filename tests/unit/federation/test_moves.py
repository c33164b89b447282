"""The downlink."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import pemn.codec
from pemn.codec.model import ContextModel
from pemn.errors import MalformedFrame
from pemn.federation.levels import Levels, normal_start_levels
from pemn.federation.moves import decode_moves, encode_moves
from pemn.schedule import Schedule
from pemn.wire.limits import MAX_SPEC_BYTES, max_task_bytes
from pemn.wire.protocols import MaskProtocol

K = NDArray[np.int8]
STATES = st.integers(-127, 127)
PAIRS = st.lists(st.tuples(STATES, STATES), min_size=1, max_size=200)


def levels_of(n: int, num_layers: int = 1) -> Levels:
    first = min(num_layers - 1, n - 1)
    return Levels(
        MaskProtocol(9000, Schedule.always(1), 1, normal_start_levels(3.0)), 5, (1,) * first + (n - first,)
    )


def states(pairs: list[tuple[int, int]]) -> tuple[K, K]:
    before, after = np.array(pairs, np.int8).T
    return before.copy(), after.copy()


def moved_by(before: K, share: float, seed: int, farthest: int = 1) -> K:
    rng = np.random.default_rng(seed)
    steps = rng.integers(-farthest, farthest, before.size, endpoint=True)
    return (before + np.where(rng.random(before.size) < share, steps, 0)).clip(-127, 127).astype(np.int8)


@given(PAIRS, st.integers(1, 12))
@example([(-127, 127)], 1)
@example([(127, -127)] * 65, 9)
@example([(0, steps) for steps in range(-127, 128)], 1)
@example([(-127, steps - 127) for steps in range(255)], 1)
def test_nothing_is_lost(pairs: list[tuple[int, int]], num_layers: int) -> None:
    before, after = states(pairs)
    kept = before.copy()
    levels = levels_of(len(pairs), num_layers)
    found = decode_moves(encode_moves(before, after, levels), before, levels)
    assert found.dtype == np.int8
    assert np.array_equal(found, after)
    assert np.array_equal(before, kept)


@pytest.mark.parametrize("farthest", [1, 9, 254])
def test_nothing_is_lost_over_many_blocks(farthest: int) -> None:
    n = 150_003
    before = moved_by(np.zeros(n, np.int8), 1.0, 1, 127)
    after, levels = moved_by(before, 0.3, 2, farthest), levels_of(n, 10)
    assert np.array_equal(decode_moves(encode_moves(before, after, levels), before, levels), after)


def test_no_move_is_no_byte() -> None:
    before = np.arange(100, dtype=np.int8)
    assert encode_moves(before, before.copy(), levels_of(100)) == b""
    found = decode_moves(b"", before, levels_of(100))
    assert np.array_equal(found, before)
    assert not np.shares_memory(found, before)


@pytest.mark.parametrize(("n", "zeros"), [(1, b"\x00\x00"), (64, b"\x01\x00"), (1000, b"\x01\x00")])
def test_moves_of_nothing_have_no_other_form(n: int, zeros: bytes) -> None:
    with pytest.raises(MalformedFrame, match="moves of nothing"):
        decode_moves(zeros, np.zeros(n, np.int8), levels_of(n))


@pytest.mark.parametrize("step", [-1, 1])
def test_moves_do_not_leave_the_range(step: int) -> None:
    """The same bytes for a state that has no room: contexts know the sign of k only, and one level of q."""
    levels = Levels(MaskProtocol(1, Schedule.always(1), 1, ()), 5, (40,))
    far = np.full(40, 127 * step, np.int8)
    coded = encode_moves(np.full(40, 126 * step, np.int8), far, levels)
    with pytest.raises(MalformedFrame, match="range of k"):
        decode_moves(coded, far, levels)


@given(PAIRS, st.data())
def test_only_canonical_moves_are_accepted(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    before, after = states(pairs)
    levels = levels_of(len(pairs))
    coded = bytearray(encode_moves(before, after, levels))
    if not coded:
        return
    coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = decode_moves(bytes(coded), before, levels)
    except MalformedFrame:
        return
    assert encode_moves(before, other, levels) == bytes(coded)


@given(st.binary(min_size=1, max_size=40), st.integers(1, 60))
def test_garbage_is_refused_or_canonical(garbage: bytes, n: int) -> None:
    before, levels = np.zeros(n, np.int8), levels_of(n)
    try:
        after = decode_moves(garbage, before, levels)
    except MalformedFrame:
        return
    assert encode_moves(before, after, levels) == garbage


@pytest.mark.parametrize(
    ("n", "share", "farthest"), [(1, 1, 1), (5000, 0.02, 1), (200_000, 0.2, 1), (200_000, 0.5, 12)]
)
def test_moves_are_as_long_as_their_model_says(
    n: int, share: float, farthest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[ContextModel] = []

    class Kept(ContextModel):
        def __init__(self, shape: tuple[int, ...]) -> None:
            super().__init__(shape)
            models.append(self)

    monkeypatch.setattr(pemn.codec, "ContextModel", Kept)
    before = moved_by(np.zeros(n, np.int8), 0.5, 3)
    num_bytes = len(encode_moves(before, moved_by(before, share, 4, farthest) ^ (n == 1), levels_of(n)))
    assert 0 < num_bytes < 1.01 * models[0].cost / 8 + 64


def test_rare_moves_cost_their_entropy() -> None:
    n = 100_000
    moved = (np.random.default_rng(2).random(n) < 0.02).astype(np.int8)
    bound = n * -(0.02 * np.log2(0.02) + 0.98 * np.log2(0.98)) / 8
    assert len(encode_moves(np.zeros(n, np.int8), moved, levels_of(n))) < 1.03 * bound + 64


def test_the_longest_moves_fit_into_a_message() -> None:
    n = 40_000
    rng = np.random.default_rng(4)
    before = np.where(rng.random(n) < 0.5, -127, 127).astype(np.int8)
    after = rng.integers(-127, 127, n, endpoint=True).astype(np.int8)
    num_bytes = len(encode_moves(before, after, levels_of(n)))
    assert n < num_bytes < max_task_bytes(n) - MAX_SPEC_BYTES
