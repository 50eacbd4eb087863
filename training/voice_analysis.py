"""From the teacher's audio to the vocoder's frames: pitch, envelope and noise shares.

The envelope is CheapTrick (Morise 2015): a pitch-long window, smoothing over two thirds of the pitch, and a
lifter that takes the pitch's ripple out. Noise shares are one minus the normalised autocorrelation at the
pitch period, band by band.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.speech.voice.config import VoiceConfig
from pipelines.speech.voice.vocoder import spread

Array = npt.NDArray[np.float64]

LOWEST_HZ, HIGHEST_HZ, REST_HZ = 110.0, 300.0, 180.0
VOICED = 0.8
"""Least autocorrelation of a voiced frame; the teacher's voiced sounds are above 0.95."""
WINDOW = 512
PITCH_FFT = 1024
FLOOR = 1e-9


@dataclass(frozen=True, slots=True)
class Frames:
    """envelope [frames, envelope_bands] natural-log power; share [frames, noise_bands]; pitch [frames] Hz."""

    envelope: npt.NDArray[np.float32]
    share: npt.NDArray[np.float32]
    pitch: npt.NDArray[np.float32]


def analyse(audio: npt.NDArray[np.float32], config: VoiceConfig) -> Frames:
    """Frames of a whole utterance, `len(audio) // hop + 1` of them, frame i centred on sample i * hop."""
    count = len(audio) // config.hop + 1
    padded = np.pad(audio.astype(np.float64), (WINDOW // 2, WINDOW))
    index = np.arange(count)[:, None] * config.hop + np.arange(WINDOW)[None, :]
    pieces = padded[index]
    pitch = drop_leaps(find_pitch(pieces, config.sample_rate))
    steady = fill_pitch(pitch)
    power = envelope_power(pieces, steady, config.sample_rate)
    at = np.asarray(spread(config.envelope_bands, WINDOW // 2 + 1, config.sample_rate), np.float64)
    at /= at.sum(axis=1, keepdims=True)
    share = noise_share(pieces, steady, config)
    share[pitch == 0] = 1.0
    return Frames(
        (np.log(power + FLOOR) @ at.T).astype(np.float32), share.astype(np.float32), steady.astype(np.float32)
    )


def find_pitch(pieces: Array, sample_rate: int) -> Array:
    """Pitch in Hz, 0 where unvoiced, by normalised autocorrelation below 1.5 kHz."""
    window = np.hanning(WINDOW)
    middle = pieces * window
    spectrum = np.abs(np.fft.rfft(middle, PITCH_FFT)) ** 2
    spectrum[:, int(1500 * PITCH_FFT / sample_rate) :] = 0.0
    own = np.fft.irfft(np.abs(np.fft.rfft(window, PITCH_FFT)) ** 2)
    rate = np.fft.irfft(spectrum) / (own / own[0])
    short, long = int(sample_rate / HIGHEST_HZ), int(sample_rate / LOWEST_HZ)
    energy = rate[:, 0] + 1e-12
    lags = rate[:, short - 1 : long + 2] / energy[:, None]
    inner = lags[:, 1:-1]
    peaks = (inner >= lags[:, :-2]) & (inner >= lags[:, 2:])
    height = np.where(peaks, inner, 0.0)
    best = height.max(axis=1)
    chosen = np.argmax(height >= 0.9 * best[:, None], axis=1)
    row = np.arange(len(lags))
    left, top, right = lags[row, chosen], lags[row, chosen + 1], lags[row, chosen + 2]
    bend = left - 2 * top + right
    shift = np.where(np.abs(bend) > 1e-9, 0.5 * (left - right) / np.where(bend == 0, 1, bend), 0.0).clip(
        -1, 1
    )
    pitch = sample_rate / (short + chosen + shift)
    loud = np.mean(middle**2, axis=1) > 1e-7
    voiced = (best > VOICED) & loud
    return np.asarray(np.where(voiced, pitch, 0.0))


def drop_leaps(pitch: Array) -> Array:
    """Takes as unvoiced what is a quarter away from the median of its voiced neighbours: noise that seems
    to hum.
    """
    voiced = np.flatnonzero(pitch > 0)
    if len(voiced) == 0:
        return pitch
    around = np.pad(pitch[voiced], 20, mode="edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(around, 41), axis=1)
    kept = pitch.copy()
    kept[voiced[np.abs(pitch[voiced] / usual - 1.0) > 0.25]] = 0.0
    return kept


def fill_pitch(pitch: Array) -> Array:
    """Takes out single leaps (median of five) and draws lines across what is unvoiced."""
    voiced = np.flatnonzero(pitch > 0)
    if len(voiced) == 0:
        return np.full(len(pitch), REST_HZ)
    values = pitch[voiced]
    around = np.pad(values, 2, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(around, 5), axis=1)
    filled: Array = np.interp(np.arange(len(pitch)), voiced, smooth)
    return filled


def envelope_power(pieces: Array, pitch: Array, sample_rate: int) -> Array:
    """[frames, WINDOW // 2 + 1] smooth power spectral density (white noise of variance v gives v)."""
    time = (np.arange(WINDOW) - WINDOW // 2)[None, :] * (pitch[:, None] / sample_rate)
    window = np.where(np.abs(time) < 1.5, 0.5 + 0.5 * np.cos(np.pi * time / 1.5), 0.0)
    window /= np.sqrt((window**2).sum(axis=1, keepdims=True))
    power = np.abs(np.fft.rfft(pieces * window)) ** 2
    bins = pitch * (WINDOW / sample_rate)
    smooth = _box(power, bins * 2.0 / 3.0) + FLOOR
    cepstrum = np.fft.irfft(np.log(smooth))
    quefrency = np.arange(WINDOW // 2 + 1)[None, :] / sample_rate
    turns = pitch[:, None] * quefrency
    lifter = np.sinc(turns) * (1.3 - 0.3 * np.cos(2 * np.pi * turns))
    return np.exp(np.fft.rfft(cepstrum * np.concatenate([lifter, lifter[:, -2:0:-1]], axis=1)).real)


def _box(power: Array, width: Array) -> Array:
    """Mean of each row over `width` bins around each bin, fractional, mirrored at both ends."""
    pad = 24
    mirrored = np.concatenate([power[:, pad:0:-1], power, power[:, -2 : -pad - 2 : -1]], axis=1)
    total = np.pad(mirrored.cumsum(axis=1), ((0, 0), (1, 0)))
    middle = np.arange(power.shape[1])[None, :] + pad + 0.5

    def read(position: Array) -> Array:
        low = np.floor(position).astype(int)
        part = position - low
        below = np.take_along_axis(total, low, 1)
        return np.asarray(below + part * (np.take_along_axis(total, low + 1, 1) - below))

    half = width[:, None] / 2
    return (read(middle + half) - read(middle - half)) / width[:, None]


def noise_share(pieces: Array, pitch: Array, config: VoiceConfig) -> Array:
    """[frames, noise_bands] share of the power that does not repeat after one period."""
    window = np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(pieces * window)) ** 2
    lag = config.sample_rate / pitch
    own = np.correlate(window, window, "full")[WINDOW - 1 :]
    fall = np.interp(lag, np.arange(WINDOW), own / own[0])
    turn = np.cos(2 * np.pi * np.arange(WINDOW // 2 + 1)[None, :] / WINDOW * lag[:, None])
    bands = np.asarray(spread(config.noise_bands, WINDOW // 2 + 1, config.sample_rate), np.float64)
    repeat = ((power * turn) @ bands.T) / (power @ bands.T + 1e-12) / fall[:, None]
    return np.asarray(((1.0 - repeat - 0.1) / 0.8).clip(0.0, 1.0))
