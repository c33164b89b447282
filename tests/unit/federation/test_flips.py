"""The uplink."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.errors import MalformedFrame
from pemn.federation.flips import decode_votes, encode_flips
from pemn.federation.levels import HIGHEST, LOWEST, ONE, dither


def probabilities(n: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return np.random.default_rng(seed).integers(LOWEST, HIGHEST, n, endpoint=True).astype(np.uint16)


@given(st.integers(1, 500), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_the_server_recovers_the_difference_of_the_masks(n: int, a: int, b: int, round_: int) -> None:
    q, trained, u = probabilities(n, a), probabilities(n, b), dither(1, round_, 0, n)
    votes = decode_votes(encode_flips(trained, q, u), q, u)
    assert np.array_equal(votes, (u < trained).astype(int) - (u < q).astype(int))


def test_a_client_that_did_not_train_sends_next_to_nothing() -> None:
    q, u = probabilities(100_000, 1), dither(1, 1, 0, 100_000)
    data = encode_flips(q, q, u)
    assert len(data) <= 4
    assert not decode_votes(data, q, u).any()


def test_votes_are_unbiased_with_the_variance_of_the_change() -> None:
    q = np.full(400, 20_000, np.uint16)
    trained = np.full(400, 26_000, np.uint16)
    rounds = 500
    votes = np.array([decode_votes(encode_flips(trained, q, u), q, u) for u in _dithers(rounds, 400)])
    change = 6000 / ONE
    assert votes.mean() == pytest.approx(change, abs=4 * np.sqrt(change / votes.size))
    # A freshly sampled mask would have the variance p (1 - p) = 0.24.
    assert votes.var() == pytest.approx(change * (1 - change), rel=0.05)


def test_small_changes_cost_little() -> None:
    n = 50_000
    q, u = probabilities(n, 1), dither(1, 1, 0, n)
    trained = np.clip(q.astype(int) + np.random.default_rng(2).normal(0, 1000, n), LOWEST, HIGHEST)
    assert 8 * len(encode_flips(trained.astype(np.uint16), q, u)) < 0.1 * n


def test_flips_for_other_probabilities_are_refused_or_something_else() -> None:
    n = 5000
    q, u = probabilities(n, 1), dither(1, 1, 0, n)
    data = encode_flips(probabilities(n, 2), q, u)
    with pytest.raises(MalformedFrame):
        decode_votes(data[: len(data) // 2], q, u)


def _dithers(count: int, n: int) -> list[np.ndarray[tuple[int], np.dtype[np.uint16]]]:
    return [dither(3, round_, 1, n) for round_ in range(count)]
