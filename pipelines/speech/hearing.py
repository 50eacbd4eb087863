"""From the client's PCM to the stretches in which somebody speaks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from pocketsphinx import Endpointer

from pipelines.finishing import to_pcm16
from pipelines.resampling import StreamResampler

SAMPLE_RATE = 16_000
RAW_STEP_S = 0.1
ONE_SAMPLE = b"\0\0"
"""The endpointer does not take an empty last frame."""


@dataclass(frozen=True, slots=True)
class Voiced:
    """Speech, PCM16 at 16 kHz, about 30 ms. start_ms: where the utterance began, end_ms: where this piece
    ends, both in the input audio."""

    pcm16: bytes
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Silence:
    """The utterance has ended; times in the input audio."""

    start_ms: int
    end_ms: int


class Hearing:
    """Resamples to 16 kHz and finds utterances (WebRTC's voice detector, by pocketsphinx).

    Owner: one job. `push` only keeps the bytes; `step` works through at most 100 ms of them.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._resampler = StreamResampler(sample_rate, SAMPLE_RATE)
        self._endpointer = Endpointer(sample_rate=SAMPLE_RATE)
        self._raw = bytearray()
        self._frame = bytearray()
        self._ended = False
        self._over = False
        self._spoken = False
        self._given = 0
        self.found: deque[Voiced | Silence] = deque()

    @property
    def waiting_s(self) -> float:
        """Seconds of audio not looked at yet."""
        return len(self._raw) / 2 / self._rate

    @property
    def over(self) -> bool:
        """The audio has ended and all of it was looked at."""
        return self._over

    @property
    def can_step(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._raw) or (self._ended and not self._over)

    def push(self, pcm16: bytes, *, final: bool) -> None:
        """More audio at the input's rate, whole samples."""
        self._raw += pcm16
        self._ended = self._ended or final

    def step(self) -> None:
        """Looks at up to 100 ms of audio; what was found stands in `found`."""
        size = 2 * max(1, int(RAW_STEP_S * self._rate))
        piece = np.frombuffer(bytes(self._raw[:size]), "<i2").astype(np.float32) / 32768.0
        del self._raw[:size]
        ready = self._resampler.push(piece)
        if self._ended and not self._raw:
            ready = np.concatenate([ready, self._resampler.finish()])
            self._over = True
        self._frame += to_pcm16(ready).tobytes()
        width = self._endpointer.frame_bytes
        while len(self._frame) >= width:
            self._look(self._endpointer.process(bytes(self._frame[:width])))
            del self._frame[:width]
        if self._over and self._endpointer.in_speech:
            self._look(self._endpointer.end_stream(bytes(self._frame) or ONE_SAMPLE))

    def _look(self, speech: bytes | None) -> None:
        """`speech` is what the endpointer gave out, None outside utterances."""
        if speech is None:
            return
        start_ms = round(self._endpointer.speech_start * 1000)
        width = self._endpointer.frame_bytes
        for at in range(0, len(speech), width):
            if not self._spoken:
                self._given = 0
            piece = speech[at : at + width]
            self._given += len(piece)
            end_ms = start_ms + self._given * 1000 // (2 * SAMPLE_RATE)
            self.found.append(Voiced(piece, start_ms, end_ms))
            self._spoken = True
        if not self._endpointer.in_speech:
            if self._spoken:
                self.found.append(Silence(start_ms, round(self._endpointer.speech_end * 1000)))
            self._spoken = False
