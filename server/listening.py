"""A spoken prompt: what was said so far, and when each sample of it arrived. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque

from pipelines.errors import InvalidRequest
from pipelines.messages import TranscriptChunk

TOGETHER_S = 0.005
"""What comes so soon behind a piece counts as part of it, so that crumbs of audio take no memory."""


class Arrivals:
    """When each sample of some audio arrived, as far as the last `kept_s` of it go. Owner: who hears it."""

    def __init__(self, sample_rate: int, kept_s: float = math.inf) -> None:
        self.sample_rate = sample_rate
        self.total_ms = 0.0
        self._kept_ms = 1000.0 * kept_s
        self._ends_ms: deque[float] = deque()
        self._arrived_s: deque[float] = deque()

    def add(self, size: int, now_s: float) -> None:
        """`size` bytes of PCM16, some."""
        self.total_ms += 500.0 * size / self.sample_rate
        if self._arrived_s and now_s - self._arrived_s[-1] < TOGETHER_S:
            self._ends_ms[-1] = self.total_ms
            return
        self._ends_ms.append(self.total_ms)
        self._arrived_s.append(now_s)
        while self._ends_ms[0] < self.total_ms - self._kept_ms:
            self._ends_ms.popleft()
            self._arrived_s.popleft()

    def arrival_s(self, audio_ms: float, now_s: float) -> float:
        """When the sample at `audio_ms` had arrived; now, if it is not known."""
        index = bisect_left(self._ends_ms, audio_ms)
        return self._arrived_s[index] if index < len(self._arrived_s) else now_s


class Listening:
    """One turn's audio in. `prefix` was typed before. Owner: the turn."""

    def __init__(self, prefix: str, arrivals: Arrivals, max_s: float) -> None:
        self.arrivals = arrivals
        self._prefix = prefix
        self._max_s = max_s
        self._said: list[str] = []
        self._interim = ""

    @property
    def understood(self) -> bool:
        """Whether anything was said that is final."""
        return any(self._said)

    @property
    def text(self) -> str:
        """The prompt as understood so far."""
        if not self.understood and not self._interim:
            return self._prefix
        return " ".join(part for part in (self._prefix.rstrip(), *self._said, self._interim) if part)

    def arrived(self, size: int, now_s: float) -> None:
        """`size` bytes of PCM16, some. Raises: InvalidRequest beyond the longest prompt."""
        if self.arrivals.total_ms + 500.0 * size / self.arrivals.sample_rate > 1000.0 * self._max_s:
            raise InvalidRequest("audio.pcm16", f"a spoken prompt may last {self._max_s:g} s")
        self.arrivals.add(size, now_s)

    def hear(self, chunk: TranscriptChunk) -> None:
        """The recogniser's latest word on the utterance."""
        if chunk.is_final:
            self._said.append(chunk.text.strip())
            self._interim = ""
        else:
            self._interim = chunk.text.strip()
