"""The uplink."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.codec import Coder
from pemn.errors import MalformedFrame
from pemn.federation import flips as flips_module
from pemn.federation.flips import Draw, Flips, decode_flips, draw_flips, encode_flips, masks
from pemn.federation.levels import HIGHEST, LOWEST, ONE, Levels, normal_start_levels
from pemn.schedule import Schedule
from pemn.wire.protocols import MaskProtocol

PROBABILITIES = st.integers(LOWEST, HIGHEST)


def draw_of(n: int, seed: int = 1, round_: int = 1, num_layers: int = 1, spread: float = 3.0) -> Draw:
    first = min(num_layers - 1, n - 1)
    levels = Levels(
        MaskProtocol(9000, Schedule.always(1), 1, normal_start_levels(spread)),
        seed,
        (1,) * first + (n - first,),
    )
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


def sums(votes: list[Flips]) -> NDArray[np.int64]:
    """The votes added up by hand."""
    n = votes[0].draw.levels.num_params
    unpacked = np.unpackbits(masks(votes, 0, n), axis=1, bitorder="little", count=n).astype(np.int64)
    total: NDArray[np.int64] = unpacked.sum(axis=0) - len(votes)
    return total


@given(st.integers(1, 700), st.integers(0, 99), st.integers(1, 99), st.integers(1, 12))
@example(1, 0, 1, 1)
@example(65_664, 0, 1, 9)
def test_the_server_recovers_the_difference_of_the_masks(n: int, a: int, round_: int, layers: int) -> None:
    draw, trained = draw_of(n, a, round_, layers), trained_of(n, a)
    flips = draw_flips(trained, draw)
    data = encode_flips(flips)
    vote = decode_flips(data, draw)
    q, u = draw.q(0, n), draw.u(0, n)
    assert np.array_equal(bits(vote.mask, n), (u < trained) ^ (u < q))
    assert np.array_equal(vote.mask, flips.mask)
    assert np.array_equal(sums([vote]), (u < trained).astype(int) - (u < q))
    assert encode_flips(vote) == data


@dataclass(frozen=True, eq=False)
class EveryDither(Draw):
    """65,536 weights of one q, whose dithers are all that there are."""

    level: int = field(default=0, kw_only=True)

    @classmethod
    def of(cls, q: int) -> EveryDither:
        levels = Levels(MaskProtocol(1, Schedule.always(1), 1, ()), 0, (ONE,))
        return cls(levels, np.zeros(ONE, np.int8), 1, 0, level=q)

    def q(self, start: int, stop: int) -> NDArray[np.uint16]:
        return np.full(stop - start, self.level, np.uint16)

    def u(self, start: int, stop: int) -> NDArray[np.uint16]:
        return np.arange(start, stop).astype(np.uint16)


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
    data = encode_flips(draw_flips(np.full(ONE, p, np.uint16), draw))
    votes = sums([decode_flips(data, draw)])
    raised, lowered = int((votes > 0).sum()), int((votes < 0).sum())
    assert (raised, lowered) == (max(p - q, 0), max(q - p, 0))


def test_votes_by_the_shared_dither_have_the_variance_of_the_change() -> None:
    n, rounds = 400, 500
    levels = Levels(MaskProtocol(1, Schedule.always(1), 1, ()), 3, (n,))
    trained = np.full(n, 26_000, np.uint16)
    k = np.zeros(n, np.int8)
    votes = []
    for round_ in range(1, rounds + 1):
        draw = Draw(levels, k, round_, 1)
        votes.append(sums([decode_flips(encode_flips(draw_flips(trained, draw)), draw)]))
    votes_of_all = np.array(votes)
    change = (26_000 - 32_768) / ONE
    assert votes_of_all.mean() == pytest.approx(change, abs=4 * np.sqrt(-change / votes_of_all.size))
    # A freshly sampled mask would have the variance p (1 - p) = 0.24.
    assert votes_of_all.var() == pytest.approx(-change * (1 + change), rel=0.05)


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_a_client_that_did_not_train_sends_next_to_nothing(spread: float) -> None:
    draw = draw_of(100_000, spread=spread)
    data = encode_flips(draw_flips(draw.levels.at(draw.k), draw))
    assert len(data) <= 4
    assert not decode_flips(data, draw).mask.any()


def test_the_distance_of_the_dither_pays() -> None:
    """A static code that knew how many flips there are, but nothing of q and u, would be far longer."""
    draw = draw_of(60_000)
    flips = draw_flips(nudged(draw, 0.3), draw)
    share = np.bitwise_count(flips.mask).sum() / 60_000
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    data = encode_flips(flips)
    assert data[0] == Coder.RANS
    assert 8 * len(data) < 0.6 * entropy * 60_000


def test_small_changes_cost_little() -> None:
    n = 200_000
    draw = draw_of(n)
    assert 8 * len(encode_flips(draw_flips(nudged(draw, 0.05), draw))) < 0.03 * n


def test_dither_and_contexts_are_made_in_blocks() -> None:
    """Nothing takes as much as one 16-bit integer a weight: neither q, nor u, nor the contexts are ever whole."""
    n = 1 << 21
    draw = draw_of(n)
    trained = draw.levels.at(draw.k)
    trained[::50] = HIGHEST
    encode_flips(draw_flips(trained, draw))  # what is loaded once is not counted
    tracemalloc.start()
    try:
        flips = draw_flips(trained, draw)
        assert np.array_equal(decode_flips(encode_flips(flips), draw).mask, flips.mask)
        assert tracemalloc.get_traced_memory()[1] < 2 * n
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n", [1, 50, 5000])
def test_cut_flips_are_refused(n: int) -> None:
    draw = draw_of(n)
    data = encode_flips(draw_flips(trained_of(n, 2), draw))
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
    assert encode_flips(flips) == garbage


@given(st.integers(1, 3000), st.data())
def test_damaged_flips_are_refused_or_other_flips(n: int, data: st.DataObject) -> None:
    draw = draw_of(n)
    flips = draw_flips(nudged(draw, 1.0), draw)
    coded = bytearray(encode_flips(flips))
    coded[data.draw(st.integers(0, len(coded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = decode_flips(bytes(coded), draw)
    except MalformedFrame:
        return
    assert encode_flips(other) == bytes(coded)
    assert other.hash(bytes(16)) != flips.hash(bytes(16))


def test_the_hash_is_of_base_state_sender_and_every_bit() -> None:
    draws = [replace(draw_of(20), slot=slot) for slot in (1, 2)]
    states = bytes(16), bytes(15) + b"1", b"1" + bytes(15)
    seen = {Flips(draw, np.zeros(3, np.uint8)).hash(state) for state in states for draw in draws}
    for bit in range(20):
        seen.add(Flips(draws[0], np.packbits(np.arange(20) == bit, bitorder="little")).hash(states[0]))
    assert len(seen) == 6 + 20
    assert {len(value) for value in seen} == {8}


@pytest.mark.parametrize("n", [1, 20, 600_000])
def test_the_hash_is_the_documents(n: int) -> None:
    """By docs/wire.md, "Update"."""
    mask = np.packbits(np.arange(n) % 7 == 0, bitorder="little")
    state_hash = bytes(range(16))
    wanted = hashlib.sha256(b"pemn flips" + state_hash + struct.pack("<I", 9) + mask.tobytes()).digest()[:8]
    assert Flips(replace(draw_of(n), slot=9), mask).hash(state_hash) == wanted


@pytest.mark.parametrize(("start", "stop"), [(0, 203), (0, 64), (64, 203), (8, 8), (120, 128), (200, 203)])
def test_masks_of_any_part_of_the_weights(monkeypatch: pytest.MonkeyPatch, start: int, stop: int) -> None:
    """Of votes from two public states in turn, and in blocks that end within the part."""
    monkeypatch.setattr(flips_module, "_BLOCK_WEIGHTS", 64)
    n = 203
    bases = [draw_of(n), replace(draw_of(n), k=np.full(n, 1, np.int8))]
    votes = [
        draw_flips(trained_of(n, slot), replace(bases[slot // 2 % 2], slot=slot, round=slot % 3 + 1))
        for slot in range(7)
    ]
    found = masks(votes, start, stop)
    assert found.shape == (14, -(-(stop - start) // 8))
    for slot, (own, closed) in enumerate(found.reshape(7, 2, -1)):
        draw = votes[slot].draw
        q, u = draw.q(start, stop), draw.u(start, stop)
        whole = np.unpackbits(own, bitorder="little", count=stop - start).astype(bool)
        assert np.array_equal(whole, u < trained_of(n, slot)[start:stop])
        whole = np.unpackbits(closed, bitorder="little", count=stop - start).astype(bool)
        assert np.array_equal(whole, u >= q)
