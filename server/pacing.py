"""Audio leaves at most so many milliseconds ahead of what the listener hears. Pure; times are given.

A blocked `write` is no backpressure (gRPC takes minutes of speech before it blocks), so the gateway keeps
count. Rules:
  1. The place of playback is what the client last reported, plus the time since then, but never beyond
     what was written: a listener who ran dry waits, and starts again with the next audio.
  2. `room_ms` is what may be written now so that written - played <= ahead.
  3. A client's report is clamped to what was written; it can slow the audio down or correct it, not more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

AHEAD_MS = 400.0


@dataclass(slots=True)
class Pacer:
    """One turn's audio. Milliseconds of audio; `now_s` in seconds on one clock. ahead_ms inf: unpaced."""

    ahead_ms: float = AHEAD_MS
    written_ms: float = 0.0
    _anchor_ms: float = 0.0
    _anchor_s: float = 0.0

    def played_ms(self, now_s: float) -> float:
        """Where the listener is by now."""
        return min(self.written_ms, self._anchor_ms + 1000.0 * max(0.0, now_s - self._anchor_s))

    def buffered_ms(self, now_s: float) -> float:
        """What was written and not yet heard."""
        return self.written_ms - self.played_ms(now_s)

    def room_ms(self, now_s: float) -> float:
        """How much audio may be written now."""
        if math.isinf(self.ahead_ms):
            return math.inf
        return max(0.0, self.ahead_ms - self.buffered_ms(now_s))

    def wait_s(self, piece_ms: float, now_s: float) -> float:
        """Seconds until `piece_ms` of audio may be written; 0 if now."""
        missing = min(piece_ms, self.ahead_ms) - self.room_ms(now_s)
        return max(0.0, missing / 1000.0)

    def wrote(self, audio_ms: float, now_s: float) -> None:
        """So much audio has left."""
        self._anchor_ms, self._anchor_s = self.played_ms(now_s), now_s
        self.written_ms += audio_ms

    def reported(self, played_ms: float, now_s: float) -> None:
        """The client has told what was heard."""
        self._anchor_ms, self._anchor_s = min(float(played_ms), self.written_ms), now_s
