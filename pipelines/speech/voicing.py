"""Whether a stretch of sound is a voice's: some of it must repeat at the pitch of one, and be no mere tone.

The normalised autocorrelation of short frames, as in Boersma, "Accurate short-term analysis of the
fundamental frequency" (1993). Clicks, keys, hiss and thumps have no such frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LOWEST_HZ, HIGHEST_HZ = 70, 400
PERIODIC = 0.6
"""A frame's correlation with itself a period later, at least."""
TONE = 0.85
"""The share of a frame's power in its strongest line, at most: more is a whistle or a thump."""
QUIET = 0.1
"""Loudness beside the loudest frame, at least."""
LINE = 2
FFT = 1024


def voiced(frames: Sequence[bytes], sample_rate: int) -> int:
    """How many of the frames (PCM16, of one length, 20 to 60 ms each) sound voiced."""
    sound = np.frombuffer(b"".join(frames), "<i2").reshape(len(frames), -1).astype(np.float64)
    shortest, longest = sample_rate // HIGHEST_HZ, sample_rate // LOWEST_HZ
    window = np.hanning(sound.shape[1])
    power = np.abs(np.fft.rfft((sound - sound.mean(axis=1, keepdims=True)) * window, FFT)) ** 2
    faded = np.fft.irfft(np.abs(np.fft.rfft(window, FFT)) ** 2)[:longest]
    repeats = np.fft.irfft(power)[:, :longest] / faded
    loud = repeats[:, 0] > QUIET**2 * repeats[:, 0].max()
    periodic = repeats[:, shortest:].max(axis=1) > PERIODIC * repeats[:, 0]
    width = LINE * round(FFT / 512)
    lines = np.arange(-width, width + 1) + power.argmax(axis=1)[:, None]
    line = np.take_along_axis(power, lines.clip(0, power.shape[1] - 1), axis=1).sum(axis=1)
    return int((loud & periodic & (line < TONE * power.sum(axis=1))).sum())
