"""Probabilities of the public state, and the dither."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.errors import MalformedFrame
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
from pemn.schedule import Schedule
from pemn.wire.protocols import MaskProtocol
from pemn.wire.v1 import messages_pb2 as pb


def levels(step: int = 32768, spread: float = 3.0, n: int = 20_000, seed: int = 5) -> Levels:
    return Levels(MaskProtocol(step, Schedule.always(1), 1, normal_start_levels(spread)), seed, (n,))


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


@pytest.mark.parametrize(
    "lower", [(66,), (32_768,), (66, 66), (32_768, 32_768), (66, 32_768), (66, 67, 99, 32_767)]
)
def test_the_ends_of_the_table_are_the_first_level_and_what_it_lacks_to_one(lower: tuple[int, ...]) -> None:
    table = start_table(lower).tolist()
    half = ONE // 2
    assert (table[0], table[-1]) == (lower[0], ONE - lower[0])
    assert (table[half - 1], table[half]) == (lower[-1], ONE - lower[-1])


@pytest.mark.parametrize("spread", [1e-9, 3.0, 100.0])
def test_no_start_level_is_out_of_range(spread: float) -> None:
    lower = normal_start_levels(spread, 64)
    assert lower[0] >= LOWEST
    assert lower[-1] <= 32_768
    assert (
        MaskProtocol.from_proto(MaskProtocol(512, Schedule.always(1), 1, lower).to_proto()).start_levels
        == lower
    )


def with_start_levels(*lower: int) -> pb.MaskProtocol:
    deltas = [b - a for a, b in zip((0, *lower), lower, strict=False)]
    once = [pb.Count(from_round=1, value=1)]
    return pb.MaskProtocol(
        step=512, eta_nums=once, eta_den=1, start_level_deltas=deltas, strides=once, window=1, keeps=once
    )


@pytest.mark.parametrize(
    "lower", [(), (66,), (32_768,), (66, 32_768), (32_768, 32_768), (66, 66, 67, 32_768)]
)
def test_a_table_may_reach_from_the_lowest_level_to_one_half(lower: tuple[int, ...]) -> None:
    assert MaskProtocol.from_proto(with_start_levels(*lower)).start_levels == lower


@pytest.mark.parametrize("lower", [(65,), (32_769,), (65, 32_768), (66, 32_769), (66, 67, 68, 32_769)])
def test_a_start_level_out_of_range_is_refused(lower: tuple[int, ...]) -> None:
    with pytest.raises(MalformedFrame, match="start levels"):
        MaskProtocol.from_proto(with_start_levels(*lower))


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
    draw = Draw(model, k, 2, 1)
    q, u = draw.q(begin, end), draw.u(begin, end)
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
