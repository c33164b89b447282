"""Probabilities of the public state, and the dither."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.federation.flips import Draw
from pemn.federation.levels import (
    HIGHEST,
    LOWEST,
    ONE,
    Levels,
    dither,
    normal_start_levels,
    start_draws,
    start_table,
)
from pemn.wire.spec import MaskProtocol


def levels(step: int = 32768, spread: float = 3.0, n: int = 20_000, seed: int = 5) -> Levels:
    return Levels(MaskProtocol(step, 1, 1, normal_start_levels(spread)), seed, (n,))


def start(model: Levels) -> NDArray[np.uint16]:
    return model.at(np.zeros(model.num_params, np.int8))


def test_start_levels_are_those_of_a_normal_score() -> None:
    level = start(levels(spread=1.5)).astype(float)
    scores = np.log(level / (ONE - level))
    assert abs(scores.mean()) < 0.05
    assert scores.std() == pytest.approx(1.5, rel=0.03)


def test_no_spread_is_one_half() -> None:
    assert set(start(levels(spread=0)).tolist()) == {32768}


@pytest.mark.parametrize("count", [1, 2, 64, 2048])
def test_the_table_is_ascending_symmetric_and_fair(count: int) -> None:
    lower = normal_start_levels(2.0, count)
    table = start_table(lower).astype(int)
    assert table.size == ONE
    assert (np.diff(table) >= 0).all()
    assert (table + table[::-1] == ONE).all()
    repeats = ONE // (2 * count)
    assert table[: ONE // 2 : repeats].tolist() == list(lower)
    assert (np.diff(table.reshape(-1, repeats)) == 0).all()


@given(st.integers(1, 65535), st.integers(-127, 127))
def test_q_is_the_clipped_sum(step: int, k: int) -> None:
    model = levels(step=step, n=50)
    wanted = [min(max(int(s) + k * step, LOWEST), HIGHEST) for s in start(model)]
    assert model.at(np.full(50, k, np.int8)).tolist() == wanted


@given(st.integers(0, 2**64 - 1), st.integers(0, 200_000), st.integers(0, 70_000))
def test_a_block_of_a_draw_is_a_part_of_the_whole(seed: int, begin: int, count: int) -> None:
    n = 200_000
    begin = min(begin, n)
    end = min(begin + count, n)
    model = levels(step=9000, n=n, seed=seed)
    k = np.resize(np.array([-127, -3, 0, 0, 1, 126, 127], np.int8), n)
    wanted_q = start_table(model.protocol.start_levels)[start_draws(seed, 0, n)] + 9000 * k.astype(np.int64)
    q, u = Draw(model, k, 2, 1).block(begin, end)
    assert np.array_equal(q, wanted_q[begin:end].clip(LOWEST, HIGHEST))
    assert np.array_equal(u, dither(seed, 2, 1, 0, n)[begin:end])
    assert q.dtype == u.dtype == np.uint16
    assert np.array_equal(model.at(k)[begin:end], q)


def test_every_round_and_slot_has_its_own_uniform_dither() -> None:
    drawn = {(r, s): dither(9, r, s, 0, 10_000) for r in range(3) for s in range(3)}
    for u in drawn.values():
        assert abs(u.mean() / ONE - 0.5) < 0.02
    for one in drawn:
        for two in drawn:
            assert (one == two) == np.array_equal(drawn[one], drawn[two])
