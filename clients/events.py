"""What streams back, as frozen values. Usage, timings, models and options stay the wire's own messages."""

from __future__ import annotations

from dataclasses import dataclass, replace

from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types

from clients.errors import ClientError, from_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Where an event stands: `sequence` only grows within the turn."""

    session_id: str = ""
    turn_id: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Event):
    """The conversation is set up. audio_sample_rate: Hz, 0 without speech."""

    models: types.ModelChoice
    audio_sample_rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Event):
    """A piece of the answer: complete characters, taken back by `Discarded` only. `tokens`: how many it
    completes."""

    text: str
    tokens: int
    revision: int
    details: tuple[types.TokenDetail, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio(Event):
    """A piece of speech: mono PCM16, little endian, at `sample_rate` Hz, `start_ms` into the turn's audio."""

    pcm16: bytes
    sample_rate: int
    start_ms: int

    @property
    def duration_ms(self) -> float:
        return len(self.pcm16) * 500.0 / self.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Event):
    """A preview, or the finished image if `final`: a whole file of type `mime`."""

    final: bool
    step: int
    steps: int
    mime: str
    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript(Event):
    """What was heard so far of one utterance; `stability` 0 to 1, times in the input audio."""

    text: str
    stability: float
    is_final: bool
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought(Event):
    """What the model noted ahead of the commit; `action` is "infer", "wait" or "answer"."""

    revision: int
    action: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded(Event):
    """Everything sent for this revision no longer holds."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Event):
    """The end of a turn. finish_reason: "stop", "length", "cancelled", "interrupted" or "failed"; with
    "failed" `error` says why."""

    finish_reason: str
    usage: types.Usage
    timings: types.Timings
    error: ClientError | None = None


Response = (
    gateway.ConverseResponse
    | gateway.GenerateTextResponse
    | gateway.SynthesizeSpeechResponse
    | gateway.TranscribeSpeechResponse
    | gateway.GenerateImageResponse
)


class Reader:
    """Turns the responses of one stream into events; owned by the task that reads the stream.

    Images that come in parts leave as one event, with the sequence of their last part.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def read(self, response: Response) -> Event | None:
        """The event, or None while an image is not complete or where this client is too old to know it."""
        kind = response.WhichOneof("event")
        if kind is None:
            return None
        event = self._convert(getattr(response, kind))
        if event is None:
            return None
        return replace(
            event, session_id=response.session_id, turn_id=response.turn_id, sequence=response.sequence
        )

    def _convert(self, wire: object) -> Event | None:
        match wire:
            case types.TokenEvent():
                return Token(
                    text=wire.text, tokens=wire.tokens, revision=wire.revision, details=tuple(wire.details)
                )
            case types.AudioEvent():
                return Audio(pcm16=wire.pcm16, sample_rate=wire.sample_rate, start_ms=wire.start_ms)
            case types.ImageEvent():
                return self._image(wire)
            case types.DoneEvent():
                return _done(wire)
            case _:
                return _rare(wire)

    def _image(self, wire: types.ImageEvent) -> Image | None:
        if wire.part == 0:
            self._parts.clear()
        self._parts.append(wire.data)
        if wire.part + 1 < wire.parts:
            return None
        data, self._parts = b"".join(self._parts), []
        return Image(
            final=wire.WhichOneof("stage") == "final",
            step=wire.step,
            steps=wire.steps,
            mime=wire.mime,
            data=data,
            width=wire.width,
            height=wire.height,
        )


def _done(wire: types.DoneEvent) -> Done:
    known = wire.finish_reason in types.FinishReason.values()
    name = types.FinishReason.Name(wire.finish_reason) if known else "unknown"
    reason = name.removeprefix("FINISH_REASON_").lower()
    error = from_bytes(wire.error) if wire.error else None
    return Done(finish_reason=reason, usage=wire.usage, timings=wire.timings, error=error)


def _rare(wire: object) -> Event | None:
    match wire:
        case types.TranscriptEvent():
            return Transcript(
                text=wire.text,
                stability=wire.stability,
                is_final=wire.is_final,
                start_ms=wire.start_ms,
                end_ms=wire.end_ms,
            )
        case gateway.ConverseReady():
            return Ready(models=wire.models, audio_sample_rate=wire.audio_sample_rate)
        case gateway.ThoughtEvent():
            return Thought(revision=wire.revision, action=wire.action, text=wire.text)
        case gateway.DiscardedEvent():
            return Discarded(revision=wire.revision)
        case _:
            return None
