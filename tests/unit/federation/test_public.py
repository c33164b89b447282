"""The public state."""

from __future__ import annotations

import numpy as np

from pemn.federation.public import PublicState


def test_the_hash_is_of_run_round_and_every_value() -> None:
    k = np.random.default_rng(1).integers(-9, 10, 207).astype(np.int8)
    seen = {PublicState(round_, k).hash(run) for run in (1, 2) for round_ in (0, 1, 2)}
    for weight in range(k.size):
        other = k.copy()
        other[weight] += 1
        seen.add(PublicState(1, other).hash(1))
    assert len(seen) == 6 + k.size
    assert {len(value) for value in seen} == {16}
    strided = np.repeat(k, 2)[::2]
    assert PublicState(1, strided).hash(1) == PublicState(1, k).hash(1)
