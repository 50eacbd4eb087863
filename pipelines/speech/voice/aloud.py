"""Running a speaker to its end without a device thread: for measuring, for tests and for samples."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

import numpy as np
import torch

from pipelines.speech.speaker import Clause, FloatArray, Speaker

Answer = TypeVar("Answer")


def drain(work: Generator[None, None, Answer]) -> Answer:
    """Runs a generator to its return value."""
    return timed(work)[0]


def timed(work: Generator[None, None, Answer]) -> tuple[Answer, float]:
    """(return value, the longest CPU time in seconds between two of its yields, start and end included)."""
    longest, began = 0.0, time.process_time()
    while True:
        try:
            next(work)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer, max(longest, time.process_time() - began)
        now = time.process_time()
        longest, began = max(longest, now - began), now


def speak_aloud(speaker: Speaker, text: str, rate: float = 1.0, pitch: float = 1.0) -> FloatArray:
    """The whole audio of a text spoken as one clause, chunk by chunk; empty where there is nothing to say."""
    with torch.inference_mode():
        clause = Clause(speaker.phonemize(text), rate=rate, pitch=pitch)
        (state,) = drain(speaker.begin([clause]))
        parts = [np.zeros(0, np.float32)]
        while state is not None:
            ((audio, state),) = drain(speaker.chunk([state]))
            parts.append(audio)
    return np.concatenate(parts)


def difference_db(one: FloatArray, other: FloatArray) -> float:
    """Power of the difference of two equally long signals over that of the second, dB."""
    power = float(np.mean(np.square(other, dtype=np.float64)))
    apart = float(np.mean(np.square(one.astype(np.float64) - other)))
    return 10.0 * float(np.log10((apart + 1e-20) / (power + 1e-20)))
