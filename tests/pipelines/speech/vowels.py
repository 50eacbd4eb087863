"""Speech-like sound without a recording: a buzz through the formants of vowels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.contract import FloatArray

VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))


def vowels(rate: int, seconds: float = 1.2) -> FloatArray:
    """Four vowels with short breaks, about 0.3 loud."""
    at = np.arange(round(rate * seconds)) / rate
    hz = 120 + 15 * np.sin(2 * np.pi * 1.5 * at)
    phase = 2 * np.pi * np.cumsum(hz) / rate
    which = (at / seconds * len(VOWELS)).astype(int).clip(0, len(VOWELS) - 1)
    sound = np.zeros_like(at)
    for harmonic in range(1, 30):
        for vowel, formants in enumerate(VOWELS):
            gain = sum(np.exp(-(((harmonic * 120 - formant) / 120) ** 2)) for formant in formants)
            sound += np.where(which == vowel, gain + 0.02, 0.0) * np.sin(harmonic * phase)
    breaks = np.minimum(1.0, 8 * np.abs(np.sin(np.pi * len(VOWELS) * at / seconds)))
    loud: FloatArray = (0.3 * breaks * sound / np.abs(sound).max()).astype(np.float32)
    return loud


def silence(rate: int, seconds: float) -> FloatArray:
    """Faint, repeatable noise."""
    noise = np.random.default_rng(0).standard_normal(round(rate * seconds)) * 1e-4
    quiet: FloatArray = noise.astype(np.float32)
    return quiet


def pcm16(*parts: FloatArray) -> bytes:
    """One after the other, PCM16 little endian."""
    joined: npt.NDArray[np.int16] = (np.concatenate(parts) * 32767).astype("<i2")
    return joined.tobytes()
