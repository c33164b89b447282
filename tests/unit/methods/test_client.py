"""What a broadcast does to the public state that a client has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pemn.errors import MissingSpec, OutOfSync
from pemn.federation.public import PublicState
from pemn.methods import Client
from pemn.wire.messages import Broadcast
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((9, 13), (10, 9)), step=4096)
CLIENT = Client.of(SPEC, 0)
RUN = SPEC.run_id
STATES = [CLIENT.start()] + [
    PublicState(round_, np.random.default_rng(round_).integers(-9, 10, 207).astype(np.int8))
    for round_ in range(1, 5)
]


def broadcast(base: PublicState, now: PublicState) -> Broadcast:
    return Broadcast(RUN, base.round, now.round, now.hash(RUN), CLIENT.method.encode_change(base, now, ()))


@pytest.mark.parametrize("base", range(5))
@pytest.mark.parametrize("now", range(5))
def test_a_broadcast_leads_from_its_base_and_a_keyframe_from_anywhere(base: int, now: int) -> None:
    if base > now:
        return
    message = broadcast(STATES[base], STATES[now])
    for state in STATES:
        if base in (0, state.round) or state.round == now:
            after = CLIENT.apply(state, message)
            assert after.round == now
            assert np.array_equal(after.values, STATES[now].values)
        else:
            with pytest.raises(OutOfSync, match=f"base round: got {base}; wanted {state.round}"):
                CLIENT.apply(state, message)


def test_a_state_that_is_not_the_right_one_is_found_out_and_mended() -> None:
    wrong = PublicState(2, STATES[3].values)
    for now in (2, 3):
        with pytest.raises(OutOfSync, match="hash of the public state"):
            CLIENT.apply(wrong, broadcast(STATES[2], replace(STATES[2], round=now)))
    for kept in (wrong, PublicState(0, STATES[3].values)):
        after = CLIENT.apply(kept, broadcast(STATES[0], STATES[2]))
        assert np.array_equal(after.values, STATES[2].values)


def test_a_broadcast_of_another_run_is_refused() -> None:
    message = replace(broadcast(STATES[0], STATES[1]), run_id=RUN + 1)
    with pytest.raises(MissingSpec, match="run: got 0123456789abcdf0; wanted 0123456789abcdef"):
        CLIENT.apply(STATES[0], message)
    foreign = replace(message, state_hash=STATES[1].hash(RUN + 1))
    with pytest.raises(OutOfSync, match="hash of the public state"):
        CLIENT.apply(STATES[0], replace(foreign, run_id=RUN))
