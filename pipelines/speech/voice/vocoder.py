"""Harmonic-plus-noise vocoder: audio of any span of frames as a pure function of the frames around it.

A frame holds a log power envelope at mel-spaced points, the noise share of that power in coarser bands, and
a pitch. Harmonics are cosines on one running phase with amplitudes and minimum phases read from the
envelope at each frame and interpolated between frames; noise is a fixed table read by absolute position,
windowed, filtered by the same envelope and overlap-added (after McAulay & Quatieri 1986, Stylianou 2001).
Nothing is carried from span to span but the running phase of its first frame, so streamed and whole audio
are equal up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kernels import overlap_add
from pipelines.speech.voice.config import VoiceConfig

BINS = 257
FFT = 512
TOP_HZ = 7800.0
FADE_HZ = 300.0
NOISE_PERIOD = 1 << 16
BEFORE, AFTER = 2, 1
"""Frames that a span needs before its first and after its last."""

KNEE, CEILING = 0.7, 0.98
SILENT = -60.0


@dataclass(frozen=True, slots=True)
class Filters:
    """[rows, frames, BINS] each: log power, complex log gain with minimum phase, noise share."""

    log_power: Tensor
    spectrum: Tensor
    noisy: Tensor


def mel(hertz: Tensor) -> Tensor:
    """O'Shaughnessy's mel scale."""
    return 2595.0 * torch.log10(1.0 + hertz / 700.0)


def spread(points: int, bins: int, sample_rate: int) -> Tensor:
    """[points, bins]: linear interpolation on the mel scale from points over 0..Nyquist to FFT bins."""
    at = mel(torch.linspace(0.0, sample_rate / 2, bins, dtype=torch.float64))
    position = at / at[-1] * (points - 1)
    index = torch.arange(points, dtype=torch.float64)
    return (1.0 - (position[None, :] - index[:, None]).abs()).clamp(min=0.0).float()


def noise_table() -> Tensor:
    """[NOISE_PERIOD] white noise of variance 1, the same everywhere and always."""
    draw = np.random.Generator(np.random.Philox(key=20_261_121))
    return torch.from_numpy(draw.uniform(-(3.0**0.5), 3.0**0.5, NOISE_PERIOD).astype(np.float32))


def soft_limit(audio: Tensor) -> Tensor:
    """Leaves values below KNEE as they are and bends louder ones towards CEILING, which is never reached."""
    room = CEILING - KNEE
    over = (audio.abs() - KNEE).clamp(min=0.0)
    return torch.where(over > 0, audio.sign() * (KNEE + room * torch.tanh(over / room)), audio)


def frame_phases(pitch: Tensor, hop: int, sample_rate: int) -> Tensor:
    """[..., frames] float64: the running phase at each frame in cycles, zero at the first."""
    steps = (pitch[..., 1:].double() + pitch[..., :-1].double()) * (0.5 * hop / sample_rate)
    return torch.nn.functional.pad(steps.cumsum(-1), (1, 0))


class Vocoder:
    """Holds constants only. All tensors float32 unless said otherwise."""

    def __init__(self, config: VoiceConfig) -> None:
        self.hop, self.sample_rate = config.hop, config.sample_rate
        self._envelope = spread(config.envelope_bands, BINS, config.sample_rate)
        self._share = spread(config.noise_bands, BINS, config.sample_rate)
        self._noise = noise_table()
        self._window = torch.hann_window(2 * config.hop, periodic=True)
        lifter = torch.zeros(FFT)
        lifter[0] = lifter[FFT // 2] = 1.0
        lifter[1 : FFT // 2] = 2.0
        self._lifter = lifter

    def filters(self, envelope: Tensor, share: Tensor) -> Filters:
        """`envelope` [rows, n + 3, envelope_bands] natural-log power and `share` [rows, n + 3, noise_bands]
        in [0, 1] start `BEFORE` frames ahead of a span of n. Frames outside a clause have the envelope
        `SILENT`.
        """
        log_power = envelope @ self._envelope
        cepstrum = torch.fft.irfft(log_power * 0.5, n=FFT) * self._lifter
        noisy = (share @ self._share).clamp(1e-6, 1.0 - 1e-6)
        return Filters(log_power, torch.fft.rfft(cepstrum, n=FFT), noisy)

    def tone(self, filters: Filters, pitch: Tensor, phase: Tensor) -> Tensor:
        """[rows, n * hop] the harmonics of a span; `pitch` [rows, n + 1] Hz from its first frame on, `phase`
        [rows, n] float64 cycles at its frames.
        """
        frames = phase.shape[1]
        keep = slice(BEFORE, BEFORE + frames + 1)
        number = torch.arange(1, int(TOP_HZ / float(pitch.min())) + 1, dtype=torch.float32)
        at = pitch[..., None] * number
        level = filters.log_power[:, keep] + torch.log1p(-filters.noisy[:, keep])
        level = 0.5 * (level + torch.log(4.0 * pitch[..., None] / self.sample_rate))
        loud = torch.exp(self._read(level, at)) * ((TOP_HZ - at) / FADE_HZ).clamp(0.0, 1.0)
        turn = self._read(filters.spectrum.imag[:, keep], at)
        real, imaginary = loud * torch.cos(turn), loud * torch.sin(turn)
        theta = self._cycles(pitch, phase).remainder(1.0).float()[..., None] * (2.0 * torch.pi * number)
        ends = torch.cos(theta) @ _ends(real) - torch.sin(theta) @ _ends(imaginary)
        ramp = torch.arange(self.hop) / self.hop
        wave = torch.lerp(ends[..., 0], ends[..., 1], ramp)
        return wave.reshape(-1, frames * self.hop)

    def _cycles(self, pitch: Tensor, phase: Tensor) -> Tensor:
        """[rows, n, hop] float64: the running phase of each sample, exact for linearly moving pitch."""
        step = torch.arange(self.hop, dtype=torch.float64)
        start, end = pitch[:, :-1, None].double(), pitch[:, 1:, None].double()
        return phase[..., None] + (start * step + (end - start) * step**2 / (2 * self.hop)) / self.sample_rate

    def _read(self, table: Tensor, hertz: Tensor) -> Tensor:
        """Values of `table` [rows, frames, BINS] at frequencies [rows, frames, harmonics], linearly between
        bins.
        """
        position = (hertz * (FFT / self.sample_rate)).clamp(max=BINS - 1.001)
        low = position.long()
        below = table.gather(2, low)
        return torch.lerp(below, table.gather(2, low + 1), position - low)

    def hiss(self, filters: Filters, first: Tensor) -> Tensor:
        """[rows, n * hop] the noise of a span whose first frame has the number `first` [rows] int64."""
        total = filters.spectrum.shape[1]
        number = first[:, None] - BEFORE + torch.arange(total)
        offset = torch.arange(2 * self.hop) - self.hop
        sample = (number[..., None] * self.hop + offset).remainder(NOISE_PERIOD)
        source = torch.fft.rfft(self._noise[sample] * self._window, n=FFT)
        made = torch.fft.irfft(source * torch.exp(filters.spectrum) * filters.noisy.sqrt(), n=FFT)
        return overlap_add(made[:, BEFORE + 2 - FFT // self.hop :], self.hop)


def _ends(values: Tensor) -> Tensor:
    """[rows, n, harmonics, 2]: each frame's values and the next one's."""
    return torch.stack([values[:, :-1], values[:, 1:]], -1)
