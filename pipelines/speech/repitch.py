"""Reading sound faster or slower than it was made, by a windowed sinc: a pure function of the samples.

With the speaking rate divided by the same factor it changes pitch (and, with it, timbre) and keeps duration.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.contract import FloatArray

HALF_WIDTH = 24


def reach(factor: float) -> int:
    """Source samples on each side that one output depends on."""
    return math.ceil(HALF_WIDTH * max(1.0, factor)) + 1


def read_at(source: FloatArray, origin: int, first: int, count: int, factor: float) -> FloatArray:
    """Outputs `first` to `first + count`, float32; output n stands at source position n * factor.

    source: samples from position `origin` on, at least `reach(factor)` beyond the positions asked for,
    where the sound goes on there; outside it there is silence. A factor above 1 limits the band first.
    """
    stretch = max(1.0, factor)
    taps = np.arange(-reach(factor) + 1, reach(factor) + 1)
    positions = (first + np.arange(count)) * factor
    whole = np.floor(positions).astype(np.int64)
    distance = (taps[None, :] - (positions - whole)[:, None]) / stretch
    window = np.where(np.abs(distance) < HALF_WIDTH, 0.5 + 0.5 * np.cos(np.pi * distance / HALF_WIDTH), 0.0)
    weights = np.sinc(distance) * window / stretch
    at = whole[:, None] + taps[None, :] - origin
    inside = (at >= 0) & (at < len(source))
    samples = np.where(inside, source[np.clip(at, 0, max(0, len(source) - 1))], 0.0)
    read: FloatArray = np.sum(samples * weights, axis=1).astype(np.float32)
    return read
