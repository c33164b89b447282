"""The public state and what changes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pemn.errors import MissingSpec, OutOfSync
from pemn.federation.levels import Levels
from pemn.federation.public import PublicState, apply, broadcast
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((9, 13), (10, 9)), step=4096)
LEVELS = Levels.of(SPEC)
RUN = SPEC.run_id
STATES = [PublicState.start(207)] + [
    PublicState(round_, np.random.default_rng(round_).integers(-9, 10, 207).astype(np.int8))
    for round_ in range(1, 5)
]


def test_the_hash_is_of_run_round_and_every_k() -> None:
    k = STATES[1].k
    seen = {PublicState(round_, k).hash(run) for run in (1, 2) for round_ in (0, 1, 2)}
    for weight in range(k.size):
        other = k.copy()
        other[weight] += 1
        seen.add(PublicState(1, other).hash(1))
    assert len(seen) == 6 + k.size
    assert {len(value) for value in seen} == {16}
    strided = np.repeat(k, 2)[::2]
    assert PublicState(1, strided).hash(1) == STATES[1].hash(1)


@pytest.mark.parametrize("base", range(5))
@pytest.mark.parametrize("now", range(5))
def test_a_broadcast_leads_from_its_base_and_a_keyframe_from_anywhere(base: int, now: int) -> None:
    if base > now:
        return
    message = broadcast(RUN, LEVELS, STATES[base], STATES[now])
    for state in STATES:
        if base in (0, state.round) or state.round == now:
            after = apply(SPEC, LEVELS, state, message)
            assert after.round == now
            assert np.array_equal(after.k, STATES[now].k)
        else:
            with pytest.raises(OutOfSync, match=f"base round: got {base}; wanted {state.round}"):
                apply(SPEC, LEVELS, state, message)


def test_a_state_that_is_not_the_right_one_is_found_out_and_mended() -> None:
    wrong = PublicState(2, STATES[3].k)
    for now in (2, 3):
        with pytest.raises(OutOfSync, match="hash of the public state"):
            apply(SPEC, LEVELS, wrong, broadcast(RUN, LEVELS, STATES[2], replace(STATES[2], round=now)))
    after = apply(SPEC, LEVELS, wrong, broadcast(RUN, LEVELS, STATES[0], STATES[2]))
    assert np.array_equal(after.k, STATES[2].k)


def test_a_broadcast_of_another_run_is_refused() -> None:
    message = broadcast(RUN + 1, LEVELS, STATES[0], STATES[1])
    with pytest.raises(MissingSpec, match="run: got 0123456789abcdf0; wanted 0123456789abcdef"):
        apply(SPEC, LEVELS, STATES[0], message)
    with pytest.raises(OutOfSync, match="hash of the public state"):
        apply(SPEC, LEVELS, STATES[0], replace(message, run_id=RUN))
