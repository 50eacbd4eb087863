"""Figures with their 95 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Figure:
    """A share or a number with its 95 % interval over `count` prompts."""

    name: str
    value: float
    low: float
    high: float
    count: int


def interval(name: str, values: Sequence[float], seed: int = 7) -> Figure:
    """Mean with the percentile bootstrap of 2,000 resamples."""
    return ratio(name, values, [1.0] * len(values), seed)


def ratio(name: str, parts: Sequence[float], wholes: Sequence[float], seed: int = 7) -> Figure:
    """Sum of `parts` over sum of `wholes`; the pairs, one a prompt, are resampled."""
    above, below = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(above), (RESAMPLES, len(above)))
    drawn = above[picks].sum(axis=1) / np.maximum(below[picks].sum(axis=1), 1e-9)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Figure(name, float(above.sum() / max(below.sum(), 1e-9)), float(low), float(high), len(above))
