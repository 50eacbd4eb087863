"""The measures of the waveform find what they are for."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.contract import FloatArray
from training.voice_sound import border_bend, loudness_db, sound

RATE, CHUNK = 16_000, 768


def tone(seconds: float = 1.0, level: float = 0.3) -> FloatArray:
    at = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * 220.3 * at) * (1 + 0.2 * np.sin(2 * np.pi * 3.1 * at))).astype(
        np.float32
    )


def test_an_even_stream_has_no_drift_and_no_clicks() -> None:
    made = sound([tone()] * 3, CHUNK)
    assert made.drift_db == 0
    assert made.click == pytest.approx(1.0, abs=0.3)
    assert made.peak == pytest.approx(0.36, abs=0.01)


def test_a_fading_stream_drifts() -> None:
    assert sound([tone(), tone(level=0.15)], CHUNK).drift_db == pytest.approx(-6.0, abs=0.1)


def test_pauses_have_no_loudness() -> None:
    silence = np.zeros(RATE, np.float32)
    assert loudness_db(np.concatenate([tone(), silence])) == pytest.approx(loudness_db(tone()), abs=0.1)


def test_a_step_at_each_border_is_a_click() -> None:
    audio = tone()
    audio[CHUNK::CHUNK] += 0.05
    assert border_bend(audio, CHUNK) > 5
