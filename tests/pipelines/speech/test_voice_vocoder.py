"""The vocoder: spans join without a seam, pitch and level are what the frames say, nothing clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.speech.voice.config import MODEL_TYPE, VoiceConfig
from pipelines.speech.voice.vocoder import AFTER, BEFORE, CEILING, SILENT, Vocoder, frame_phases, soft_limit

CONFIG = VoiceConfig(MODEL_TYPE, ("test",), ())
VOCODER = Vocoder(CONFIG)
FRAMES = 40


def frames(level: float, share: float, hertz: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(envelope, share, pitch, phase) of FRAMES steady frames, padded for one whole span."""
    envelope = torch.full((1, FRAMES + BEFORE + AFTER, CONFIG.envelope_bands), level)
    envelope[:, :BEFORE] = SILENT
    shares = torch.full((1, FRAMES + BEFORE + AFTER, CONFIG.noise_bands), share)
    return envelope, shares, hertz[None], frame_phases(hertz, CONFIG.hop, CONFIG.sample_rate)[None]


def spoken(parts: tuple[Tensor, Tensor, Tensor, Tensor], first: int, count: int) -> Tensor:
    envelope, share, pitch, phase = parts
    cut = slice(first, first + count + BEFORE + AFTER)
    filters = VOCODER.filters(envelope[:, cut], share[:, cut])
    tone = VOCODER.tone(filters, pitch[:, first : first + count + 1], phase[:, first : first + count])
    return (tone + VOCODER.hiss(filters, torch.tensor([first])))[0]


def test_spans_equal_the_whole() -> None:
    parts = frames(-8.0, 0.3, torch.linspace(150.0, 260.0, FRAMES + 1))
    whole = spoken(parts, 0, FRAMES)
    pieces = torch.cat([spoken(parts, first, 4) for first in range(0, FRAMES, 4)])
    assert float((whole - pieces).abs().max()) < 1e-4


def test_the_pitch_is_the_pitch() -> None:
    audio = spoken(frames(-8.0, 0.0, torch.full((FRAMES + 1,), 200.0)), 0, FRAMES).numpy()
    spectrum = np.abs(np.fft.rfft(audio[-4000:] * np.hanning(4000)))
    assert np.argmax(spectrum[10:75]) + 10 == 50


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_level_is_the_level(share: float) -> None:
    audio = spoken(frames(-8.0, share, torch.full((FRAMES + 1,), 200.0)), 0, FRAMES)[1024:]
    assert float(audio.square().mean().log()) == pytest.approx(-8.0, abs=0.25)


def test_silence_is_silent() -> None:
    assert float(spoken(frames(SILENT, 1.0, torch.full((FRAMES + 1,), 200.0)), 0, FRAMES).abs().max()) < 1e-9


def test_the_limiter_leaves_speech_alone_and_never_clips() -> None:
    wave = torch.linspace(-20.0, 20.0, 2001)
    limited = soft_limit(wave)
    assert float(limited.abs().max()) < CEILING + 1e-6
    assert bool((torch.diff(limited) >= 0).all())
    quiet = wave[wave.abs() < 0.7]
    assert torch.equal(soft_limit(quiet), quiet)
