"""What the gateway says to a client, before it is put into the wire's words."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.errors import UpbeatError
from pipelines.messages import (
    AudioChunk,
    DeviceTimings,
    FinishReason,
    ModelInfo,
    TokenChunk,
    TranscriptChunk,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Ready:
    """The conversation is set up. sample_rate: Hz of the speech to come, 0 without."""

    models: tuple[ModelInfo, ...]
    sample_rate: int


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A preview or a part of the final image; `data` in order makes the encoded file."""

    data: bytes
    mime: str
    width: int
    height: int
    step: int
    steps: int
    final: bool
    part: int
    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds after the commit; None where it did not happen. jobs: by modality."""

    first_token_ms: float | None = None
    last_token_ms: float | None = None
    first_audio_ms: float | None = None
    first_preview_ms: float | None = None
    image_ms: float | None = None
    total_ms: float = 0.0
    quality: str = "full"
    jobs: dict[str, DeviceTimings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The end of a turn. error: with FAILED only."""

    reason: FinishReason
    usage: Usage
    timings: Timings
    error: UpbeatError | None = None


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model replied to a piece of the prompt: "infer", "wait" or "answer", and what."""

    revision: int
    action: str
    text: str


@dataclass(frozen=True, slots=True)
class Discarded:
    """The tokens sent for this revision no longer hold."""

    revision: int


Body = Ready | TokenChunk | AudioChunk | ImagePart | TranscriptChunk | Thought | Discarded | TurnDone


@dataclass(frozen=True, slots=True)
class Event:
    """One event on its way out. sequence grows by one within the turn, from 1; `Ready` has none (0)."""

    session_id: str
    turn_id: str
    sequence: int
    body: Body

    @property
    def size(self) -> int:
        """Bytes it takes to keep, roughly."""
        match self.body:
            case AudioChunk(pcm16=data) | ImagePart(data=data):
                return 200 + len(data)
            case TokenChunk(text=text) | TranscriptChunk(text=text) | Thought(text=text):
                return 200 + 4 * len(text)
            case _:
                return 1000
