"""What one turn has brought so far, with the client's own clock. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from clients.events import Audio, Discarded, Done, Event, Image, Token, Transcript


@dataclass(slots=True)
class Answer:
    """One turn's answer, gathered. `marks` are seconds after the commit; owner: the task that reads.
    `heard`: the question, where it was spoken."""

    heard: str = ""
    text: str = ""
    tokens: int = 0
    pcm16: list[bytes] = field(default_factory=list)
    sample_rate: int = 0
    audio_ms: float = 0.0
    most_ahead_ms: float = 0.0
    previews: int = 0
    image: Image | None = None
    done: Done | None = None
    marks: dict[str, float] = field(default_factory=dict)

    def add(self, event: Event, now_s: float) -> None:
        """An event has arrived, `now_s` seconds after the commit."""
        match event:
            case Token():
                self._mark("first_token", now_s)
                self.text += event.text
                self.tokens += event.tokens
            case Discarded():
                self.text, self.tokens = "", 0
                self.marks.pop("first_token", None)
            case Audio():
                self._mark("first_audio", now_s)
                self.pcm16.append(event.pcm16)
                self.sample_rate = event.sample_rate
                self.audio_ms += event.duration_ms
                self.most_ahead_ms = max(self.most_ahead_ms, self.ahead_ms(now_s))
            case Image(final=False):
                self._mark("first_preview", now_s)
                self.previews += 1
            case Image():
                self._mark("image", now_s)
                self.image = event
            case Transcript(is_final=True):
                self.heard = f"{self.heard} {event.text}".strip()
            case Done():
                self._mark("total", now_s)
                self.done = event

    def ahead_ms(self, now_s: float) -> float:
        """Audio that has arrived and would not be heard yet, were it played from its arrival on."""
        return self.audio_ms - 1000 * (now_s - self.marks.get("first_audio", now_s))

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Which of "text", "speech" and "image" did not come."""
        there = {"text": bool(self.text), "speech": bool(self.audio_ms), "image": self.image is not None}
        return [name for name in wanted if not there[name]]

    def _mark(self, name: str, now_s: float) -> None:
        self.marks.setdefault(name, now_s)
