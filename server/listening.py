"""A spoken prompt: what was said so far, and when each sample of it arrived. Pure."""

from __future__ import annotations

from bisect import bisect_left

from pipelines.errors import InvalidRequest
from pipelines.messages import TranscriptChunk

TOGETHER_S = 0.005
"""What comes so soon behind a piece counts as part of it, so that crumbs of audio take no memory."""


class Listening:
    """One turn's audio in. `prefix` was typed before. Owner: the turn."""

    def __init__(self, prefix: str, sample_rate: int, max_s: float) -> None:
        self.sample_rate = sample_rate
        self._prefix = prefix
        self._max_s = max_s
        self._said: list[str] = []
        self._interim = ""
        self._ends_ms: list[float] = []
        self._arrived_s: list[float] = []

    @property
    def text(self) -> str:
        """The prompt as understood so far."""
        return " ".join(part for part in (self._prefix.rstrip(), *self._said, self._interim) if part)

    def arrived(self, size: int, now_s: float) -> None:
        """`size` bytes of PCM16, some. Raises: InvalidRequest beyond the longest prompt."""
        total_ms = (self._ends_ms[-1] if self._ends_ms else 0.0) + 500.0 * size / self.sample_rate
        if total_ms > 1000.0 * self._max_s:
            raise InvalidRequest("audio.pcm16", f"a spoken prompt may last {self._max_s:g} s")
        if self._arrived_s and now_s - self._arrived_s[-1] < TOGETHER_S:
            self._ends_ms[-1] = total_ms
        else:
            self._ends_ms.append(total_ms)
            self._arrived_s.append(now_s)

    def hear(self, chunk: TranscriptChunk) -> None:
        """The recogniser's latest word on the utterance."""
        if chunk.is_final:
            self._said.append(chunk.text.strip())
            self._interim = ""
        else:
            self._interim = chunk.text.strip()

    def arrival_s(self, audio_ms: float, now_s: float) -> float:
        """When the sample at `audio_ms` had arrived; now, if it is not known."""
        index = bisect_left(self._ends_ms, audio_ms)
        return self._arrived_s[index] if index < len(self._arrived_s) else now_s
