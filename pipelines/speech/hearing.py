"""From the client's PCM to the stretches in which somebody speaks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from pocketsphinx import Vad

from pipelines.finishing import to_pcm16
from pipelines.resampling import StreamResampler
from pipelines.speech.voicing import voiced

SAMPLE_RATE = 16_000
RAW_STEP_S = 0.1
FRAME_MS = 30
WINDOW = 10
"""Frames: so many of speech in a row begin an utterance, so many of none end it (pocketsphinx' own rule)."""
SHORT = 7
"""Frames: a word this short is an utterance too, where it sounds voiced."""
VOICED = 2
"""Frames of a stretch that sound voiced, where it does."""
LEAD = 2 * WINDOW
"""Frames: an utterance begins at most so long before it was found."""


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

    voices_only: no utterance begins before something in it sounded voiced, so that keys and hiss, which the
    detector takes for speech as well, are none. Owner: one job. `push` only keeps the bytes; `step` works
    through at most 100 ms of them.
    """

    def __init__(self, sample_rate: int, voices_only: bool = False) -> None:
        self._rate = sample_rate
        self._voices_only = voices_only
        self._resampler = StreamResampler(sample_rate, SAMPLE_RATE)
        self._detector = Vad(sample_rate=SAMPLE_RATE, frame_length=FRAME_MS / 1000.0)
        self._raw = bytearray()
        self._frame = bytearray()
        self._ended = False
        self._over = False
        self._recent: deque[bytes] = deque()
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
        if self._over:
            self._finish()

    def _look(self, frame: bytes) -> None:
        speech = self._detector.is_speech(frame)
        before, self._loud = self._loud, self._loud + 1 if speech else 0
        self._quiet = 0 if speech else self._quiet + 1
        self._recent.append(frame)
        self._frames += 1
        if not self._speaking:
            if self._begins() if speech else self._was(before, 1):
                self._begin(self._loud or before + 1)
            elif len(self._recent) > LEAD:
                self._recent.popleft()
        while self._speaking and len(self._recent) >= WINDOW:
            self._give(self._recent.popleft())
        if self._speaking and self._quiet >= WINDOW:
            self._end()

    def _begins(self) -> bool:
        """Whether the stretch of speech that goes on is an utterance."""
        if not self._voices_only:
            return self._loud >= WINDOW
        again = self._loud % (WINDOW // 2) == 0  # Each frame by itself would cost six times as much.
        return self._loud >= WINDOW and again and self._is_voiced(list(self._recent)[-self._loud :])

    def _was(self, loud: int, quiet: int) -> bool:
        """Whether the `loud` frames before the last `quiet` ones, which began none, are an utterance."""
        end = len(self._recent) - quiet
        return loud >= SHORT and self._is_voiced(list(self._recent)[max(0, end - loud) : end])

    def _is_voiced(self, frames: list[bytes]) -> bool:
        return voiced(frames, SAMPLE_RATE) >= VOICED

    def _begin(self, frames: int) -> None:
        """The last so many frames belong to an utterance, as far as they are still there."""
        while len(self._recent) > frames:
            self._recent.popleft()
        self._speaking, self._given = True, 0
        self._start_ms = FRAME_MS * (self._frames - len(self._recent))

    def _last(self) -> list[bytes]:
        """Frames of the utterance that are yet to be given out, if it is over: one of quiet is among them."""
        return list(self._recent)[: len(self._recent) - max(0, self._quiet - 1)]

    def _finish(self) -> None:
        """The audio ends, perhaps in the midst of an utterance: what silence would have ended of it, or all
        there is."""
        if not self._speaking and self._was(self._loud, 0):
            self._begin(self._loud)
        if not self._speaking:
            return
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
