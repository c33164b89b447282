"""Learning rates over a run: pure functions of how far it has come.

All take `t`, the epochs done after the step that the rate is for: step i = 0 .. n - 1 of epoch e has
t = e + (i + 1) / n, so t runs from just above 0 to `epochs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Schedule = Callable[[float, int, float], float]
"""(t, epochs, peak) -> learning rate."""


def triangular(t: float, epochs: int, peak: float) -> float:
    """Rises from 0 to `peak` in two fifths of the run, falls to a twentieth in another two, and to 0 in the last.

    The schedule of PEMN's ConvMixer, which is that of locuslab's `convmixer-cifar10`: its corners are whole epochs,
    rounded down, so a run of fewer than 3 epochs begins at its peak or below.

    Args:
        t: Epochs done, 0 .. `epochs`.
        epochs: Length of the run.
        peak: The highest rate.
    """
    corners = (0, 2 * epochs // 5, 4 * epochs // 5, epochs)
    return float(np.interp(t, corners, (0, peak, peak / 20, 0)))


def cosine(t: float, epochs: int, peak: float) -> float:
    """Falls from `peak` to 0 along half a cosine (Loshchilov and Hutter, 2017, equation 5, without restarts)."""
    return peak * (1 + math.cos(math.pi * t / epochs)) / 2


def steps(t: float, epochs: int, peak: float) -> float:
    """Falls to a tenth of itself after half of the run, and again after three quarters."""
    return peak * 0.1 ** sum(t > share * epochs for share in (0.5, 0.75))


def constant(t: float, epochs: int, peak: float) -> float:
    """Stays at `peak`."""
    return peak


SCHEDULES: dict[str, Schedule] = {
    "triangular": triangular,
    "cosine": cosine,
    "steps": steps,
    "constant": constant,
}
