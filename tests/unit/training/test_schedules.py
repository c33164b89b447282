"""Learning-rate schedules, against numbers written out."""

from __future__ import annotations

import numpy as np
import pytest

from pemn.training.schedules import SCHEDULES, constant, cosine, steps, triangular


def test_triangular_is_the_papers() -> None:
    """lr 0.05 over 100 epochs: up to epoch 40, down to 0.0025 at 80, to 0 at 100."""
    rates = {
        0: 0.0,
        0.01: 0.0000125,
        10: 0.0125,
        40: 0.05,
        50: 0.038125,
        60: 0.02625,
        80: 0.0025,
        90: 0.00125,
        100: 0.0,
    }
    for t, rate in rates.items():
        assert triangular(t, 100, 0.05) == pytest.approx(rate, rel=1e-12, abs=1e-18)


def test_triangular_has_its_corners_at_whole_epochs() -> None:
    """Of 7 epochs: 14 // 5 = 2 and 28 // 5 = 5, not 2.8 and 5.6."""
    rates = [triangular(t, 7, 1.0) for t in (1, 2, 5, 6, 7)]
    assert rates == pytest.approx([0.5, 1.0, 0.05, 0.025, 0.0])


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_short_triangle_still_falls_to_nothing(epochs: int) -> None:
    rates = [triangular(t, epochs, 1.0) for t in np.linspace(0.01, epochs, 50)]
    assert all(np.diff(rates) < 0)
    assert 0 < rates[0] <= 1
    assert rates[-1] == 0


def test_cosine() -> None:
    rates = [cosine(t, 200, 1e-4) for t in (0, 50, 100, 150, 200)]
    assert rates == pytest.approx([1e-4, 8.535533905932738e-05, 5e-5, 1.4644660940672628e-05, 0], abs=1e-19)


def test_steps() -> None:
    """The last step of epoch 99 has t = 100 and still the old rate; the next has the new one."""
    rates = [steps(t, 200, 0.1) for t in (0.01, 100, 100.01, 150, 150.01, 200)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-12)


def test_constant() -> None:
    assert [constant(t, 9, 0.3) for t in (0, 4.5, 9)] == [0.3] * 3


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_rate_leaves_the_range(name: str) -> None:
    rates = [SCHEDULES[name](t, 25, 0.2) for t in np.linspace(0, 25, 501)]
    assert all(isinstance(rate, float) for rate in rates)
    assert min(rates) >= 0
    assert max(rates) == pytest.approx(0.2)
