"""From the client's PCM to the stretches in which somebody speaks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from pocketsphinx import Vad

from pipelines.finishing import to_pcm16
from pipelines.resampling import StreamResampler

SAMPLE_RATE = 16_000
RAW_STEP_S = 0.1
FRAME_MS = 30
WINDOW = 10
"""Frames: so many of speech in a row begin an utterance, so many of none end it (pocketsphinx' own rule)."""


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
    """Resamples to 16 kHz and finds utterances: WebRTC's voice detector, by pocketsphinx, which calls the
    first tenths of a second of quiet speech still.

    Owner: one job. `push` only keeps the bytes; `step` works through at most 100 ms of them.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._resampler = StreamResampler(sample_rate, SAMPLE_RATE)
        self._detector = Vad(sample_rate=SAMPLE_RATE, frame_length=FRAME_MS / 1000.0)
        self._raw = bytearray()
        self._frame = bytearray()
        self._ended = False
        self._over = False
        self._recent: deque[bytes] = deque(maxlen=WINDOW)
        self._frames = self._loud = self._quiet = 0
        self._speaking = False
        self._start_ms = self._given = 0
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

    @property
    def pause(self) -> bytes:
        """In a pause, what would still be found of the utterance if nothing more is said; otherwise empty.
        The same in each frame of the pause."""
        return b"".join(self._last()) if self._speaking and self._quiet else b""

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
        width = self._detector.frame_bytes
        while len(self._frame) >= width:
            self._look(bytes(self._frame[:width]))
            del self._frame[:width]
        if self._over and self._speaking:
            self._finish()

    def _look(self, frame: bytes) -> None:
        voiced = self._detector.is_speech(frame)
        self._loud, self._quiet = (self._loud + 1, 0) if voiced else (0, self._quiet + 1)
        self._recent.append(frame)
        self._frames += 1
        if not self._speaking and self._loud >= WINDOW:
            self._speaking, self._given = True, 0
            self._start_ms = FRAME_MS * (self._frames - WINDOW)
        if self._speaking:
            self._give(self._recent.popleft())
        if self._speaking and self._quiet >= WINDOW:
            self._end()

    def _last(self) -> list[bytes]:
        """Frames of the utterance that are yet to be given out, if it is over: one of quiet is among them."""
        return list(self._recent)[: len(self._recent) - max(0, self._quiet - 1)]

    def _finish(self) -> None:
        """The audio ends in the midst of an utterance: what silence would have ended, or all there is."""
        for frame in self._last():
            self._give(frame)
        if self._frame and not self._quiet:
            self._give(bytes(self._frame))
        self._end()

    def _give(self, pcm16: bytes) -> None:
        self._given += len(pcm16)
        self.found.append(Voiced(pcm16, self._start_ms, self._end_ms))

    def _end(self) -> None:
        self.found.append(Silence(self._start_ms, self._end_ms))
        self._speaking = False

    @property
    def _end_ms(self) -> int:
        """Of what was given out of the utterance."""
        return self._start_ms + self._given * 1000 // (2 * SAMPLE_RATE)
