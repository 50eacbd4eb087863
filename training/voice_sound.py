"""What is wrong with a waveform, if anything: loudness that drifts, clicks at chunk borders, clipping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.contract import FloatArray

Floats = npt.NDArray[np.float64]

LOUD = 0.1
"""A share of the peak: frames below it are pauses and have no loudness."""
FRAME = 320
NEIGHBOURS = 8


@dataclass(frozen=True, slots=True)
class Sound:
    """drift_db: loudness of the last repetition of a sentence over that of the first. click: bend of the wave
    (second difference) at chunk borders over that beside them, 1.0 where a border cannot be told. peak: 1.0
    is full scale."""

    drift_db: float
    click: float
    peak: float


def loudness_db(audio: FloatArray) -> float:
    """Of the frames of 20 ms (at 16 kHz) that are no pause, dB below full scale; `audio` (samples,)."""
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    power = np.square(frames).mean(axis=1)
    spoken = power[power > (LOUD * np.abs(audio).max()) ** 2 / 2]
    return 10 * float(np.log10(spoken.mean()))


def border_bend(audio: FloatArray, chunk: int) -> float:
    """Mean bend at each `chunk` samples over the mean bend at places beside them."""
    bend = np.abs(np.diff(audio.astype(np.float64), 2))
    borders = np.arange(chunk, len(bend) - chunk // 2, chunk)
    beside = np.concatenate([borders + chunk * part // (NEIGHBOURS + 1) for part in range(1, NEIGHBOURS + 1)])
    return float(_bend_at(bend, borders).mean() / _bend_at(bend, beside[beside < len(bend) - 2]).mean())


def sound(clauses: Sequence[FloatArray], chunk: int) -> Sound:
    """Of the same sentence said many times in one stream."""
    whole = np.concatenate(clauses)
    drift = loudness_db(clauses[-1]) - loudness_db(clauses[0])
    bends = [border_bend(audio, chunk) for audio in clauses]
    return Sound(drift, float(np.mean(bends)), float(np.abs(whole).max()))


def _bend_at(bend: Floats, places: npt.NDArray[np.int64]) -> Floats:
    """The sharpest of the three bends that touch each place."""
    sharpest: Floats = np.maximum.reduce([bend[places + shift] for shift in (-2, -1, 0)])
    return sharpest
