"""The uplink."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.codec import Coder
from pemn.errors import MalformedFrame
from pemn.federation.flips import Draw, Flips, decode_flips, draw_flips, encode_flips
from pemn.federation.levels import HIGHEST, LOWEST, ONE, Levels, normal_start_levels
from pemn.wire.spec import MaskProtocol

PROBABILITIES = st.integers(LOWEST, HIGHEST)


def draw_of(n: int, seed: int = 1, round_: int = 1, num_layers: int = 1, spread: float = 3.0) -> Draw:
    first = min(num_layers - 1, n - 1)
    levels = Levels(MaskProtocol(9000, 1, 1, normal_start_levels(spread)), seed, (1,) * first + (n - first,))
    k = np.random.default_rng([seed, n]).integers(-2, 3, n).astype(np.int8)
    return Draw(levels, k, round_, 0)


def trained_of(n: int, seed: int) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(LOWEST, HIGHEST, n, endpoint=True).astype(np.uint16)


def nudged(draw: Draw, spread: float) -> NDArray[np.uint16]:
    """Scores after a little training."""
    q = draw.levels.at(draw.k).astype(np.float64)
    scores = np.log(q / (ONE - q)) + np.random.default_rng(2).normal(0, spread, q.size)
    return np.round(ONE / (1 + np.exp(-scores))).clip(LOWEST, HIGHEST).astype(np.uint16)


def bits(packed: NDArray[np.uint8], n: int) -> NDArray[np.bool_]:
    assert packed.size == -(-n // 8)
    whole = np.unpackbits(packed, bitorder="little").astype(np.bool_)
    assert not whole[n:].any()
    return whole[:n]


@given(st.integers(1, 700), st.integers(0, 99), st.integers(1, 99), st.integers(1, 12))
@example(1, 0, 1, 1)
@example(65_664, 0, 1, 9)
def test_the_server_recovers_the_difference_of_the_masks(n: int, a: int, round_: int, layers: int) -> None:
    draw, trained = draw_of(n, a, round_, layers), trained_of(n, a)
    flips = draw_flips(trained, draw)
    data = encode_flips(flips, draw)
    votes = decode_flips(data, draw)
    q, u = draw.block(0, n)
    wanted = (u < trained).astype(int) - (u < q)
    assert np.array_equal(bits(votes.raised, n).astype(int) - bits(votes.lowered, n), wanted)
    assert not (votes.raised & votes.lowered).any()
    assert np.array_equal(votes.mask, flips.mask)
    assert encode_flips(votes, draw) == data


@dataclass(frozen=True, eq=False)
class EveryDither(Draw):
    """65,536 weights of one q, whose dithers are all that there are."""

    q: int = field(default=0, kw_only=True)

    @classmethod
    def of(cls, q: int) -> EveryDither:
        levels = Levels(MaskProtocol(1, 1, 1, ()), 0, (ONE,))
        return cls(levels, np.zeros(ONE, np.int8), 1, 0, q=q)

    def block(self, start: int, stop: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        return np.full(stop - start, self.q, np.uint16), np.arange(start, stop).astype(np.uint16)


@given(PROBABILITIES, PROBABILITIES)
@example(LOWEST, HIGHEST)
@example(HIGHEST, LOWEST)
@example(LOWEST, LOWEST)
@example(HIGHEST, HIGHEST)
@example(LOWEST, LOWEST + 1)
@example(32768, 0)
@example(32768, 65535)
def test_votes_are_unbiased_to_the_bit(q: int, p: int) -> None:
    """Over all dithers the decoded votes sum up to p - q, and no vote points the other way."""
    draw = EveryDither.of(q)
    data = encode_flips(draw_flips(np.full(ONE, p, np.uint16), draw), draw)
    votes = decode_flips(data, draw)
    raised, lowered = (int(np.bitwise_count(part).sum()) for part in (votes.raised, votes.lowered))
    assert (raised, lowered) == (max(p - q, 0), max(q - p, 0))


def test_votes_by_the_shared_dither_have_the_variance_of_the_change() -> None:
    n, rounds = 400, 500
    levels = Levels(MaskProtocol(1, 1, 1, ()), 3, (n,))
    trained = np.full(n, 26_000, np.uint16)
    k = np.zeros(n, np.int8)
    sums = []
    for round_ in range(1, rounds + 1):
        draw = Draw(levels, k, round_, 1)
        votes = decode_flips(encode_flips(draw_flips(trained, draw), draw), draw)
        sums.append(bits(votes.raised, n).astype(int) - bits(votes.lowered, n))
    votes_of_all = np.array(sums)
    change = (26_000 - 32_768) / ONE
    assert votes_of_all.mean() == pytest.approx(change, abs=4 * np.sqrt(-change / votes_of_all.size))
    # A freshly sampled mask would have the variance p (1 - p) = 0.24.
    assert votes_of_all.var() == pytest.approx(-change * (1 + change), rel=0.05)


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_a_client_that_did_not_train_sends_next_to_nothing(spread: float) -> None:
    draw = draw_of(100_000, spread=spread)
    data = encode_flips(draw_flips(draw.levels.at(draw.k), draw), draw)
    assert len(data) <= 4
    assert not decode_flips(data, draw).mask.any()


def test_the_distance_of_the_dither_pays() -> None:
    """A static code that knew how many flips there are, but nothing of q and u, would be far longer."""
    draw = draw_of(60_000)
    flips = draw_flips(nudged(draw, 0.3), draw)
    share = np.bitwise_count(flips.mask).sum() / 60_000
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    data = encode_flips(flips, draw)
    assert data[0] == Coder.RANS
    assert 8 * len(data) < 0.6 * entropy * 60_000


def test_small_changes_cost_little() -> None:
    n = 200_000
    draw = draw_of(n)
    assert 8 * len(encode_flips(draw_flips(nudged(draw, 0.05), draw), draw)) < 0.03 * n


def test_dither_and_contexts_are_made_in_blocks() -> None:
    """Nothing takes as much as one 16-bit integer a weight: neither q, nor u, nor the contexts are ever whole."""
    n = 1 << 21
    draw = draw_of(n)
    trained = draw.levels.at(draw.k)
    trained[::50] = HIGHEST
    encode_flips(draw_flips(trained, draw), draw)  # what is loaded once is not counted
    tracemalloc.start()
    try:
        flips = draw_flips(trained, draw)
        assert np.array_equal(decode_flips(encode_flips(flips, draw), draw).mask, flips.mask)
        assert tracemalloc.get_traced_memory()[1] < 2 * n
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n", [1, 50, 5000])
def test_cut_flips_are_refused(n: int) -> None:
    draw = draw_of(n)
    data = encode_flips(draw_flips(trained_of(n, 2), draw), draw)
    for cut in {0, 1, len(data) // 2, len(data) - 1} - {len(data)}:
        with pytest.raises(MalformedFrame):
            decode_flips(data[:cut], draw)


@given(st.binary(max_size=60), st.integers(1, 200))
def test_garbage_is_refused_or_canonical(garbage: bytes, n: int) -> None:
    draw = draw_of(n)
    try:
        flips = decode_flips(garbage, draw)
    except MalformedFrame:
        return
    assert encode_flips(flips, draw) == garbage


@given(st.integers(1, 3000), st.data())
def test_damaged_flips_are_refused_or_other_flips(n: int, data: st.DataObject) -> None:
    draw = draw_of(n)
    flips = draw_flips(nudged(draw, 1.0), draw)
    coded = bytearray(encode_flips(flips, draw))
    coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = decode_flips(bytes(coded), draw)
    except MalformedFrame:
        return
    assert encode_flips(other, draw) == bytes(coded)
    assert other.hash(bytes(16), 0) != flips.hash(bytes(16), 0)


def test_the_hash_is_of_base_state_sender_and_every_bit() -> None:
    packed = np.zeros((2, 3), np.uint8)
    states = bytes(16), bytes(15) + b"1", b"1" + bytes(15)
    seen = {Flips.none(20).hash(state, slot) for state in states for slot in (1, 2)}
    for bit in range(20):
        packed[:] = 0
        packed[bit % 2, bit // 8] = 1 << bit % 8
        seen.add(Flips(*packed).hash(states[0], 1))
    assert len(seen) == 6 + 20
    assert {len(value) for value in seen} == {8}


@pytest.mark.parametrize("flipped", [[], [0], [524_287], [524_288], [599_999], [7, 524_290, 599_998]])
def test_the_hash_is_of_the_whole_mask_however_long(flipped: list[int]) -> None:
    """By docs/wire.md, "Update": more weights than are hashed at a time."""
    votes = np.zeros((2, 600_000), np.bool_)
    votes[np.arange(len(flipped)) % 2, flipped] = True
    flips = Flips(*np.packbits(votes, axis=1, bitorder="little"))
    flip_mask = np.packbits(votes.any(axis=0), bitorder="little").tobytes()
    state_hash = bytes(range(16))
    wanted = hashlib.sha256(b"pemn flips" + state_hash + struct.pack("<I", 9) + flip_mask).digest()[:8]
    assert flips.hash(state_hash, 9) == wanted
