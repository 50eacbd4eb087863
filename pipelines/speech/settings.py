"""Settings of the speech pipelines, validated once."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """Limits of one loaded voice.

    max_jobs: jobs admitted at once. max_rows: rows of one slice. max_characters: text of one job that may
    wait to be spoken. device: torch's name of where a VITS folder runs. The pauses (seconds at rate 1) come
    before the next clause and belong to the audio; they are added where the voice makes none itself.
    """

    max_jobs: int = 64
    max_rows: int = 16
    max_characters: int = 20_000
    device: str = "cpu"
    sentence_pause_s: float = 0.25
    phrase_pause_s: float = 0.09

    def __post_init__(self) -> None:
        for field in ("max_jobs", "max_rows", "max_characters"):
            if getattr(self, field) < 1:
                raise InvalidRequest(f"speech.{field}", f"at least 1, not {getattr(self, field)}")
        for field in ("sentence_pause_s", "phrase_pause_s"):
            if not 0.0 <= getattr(self, field) <= 5.0:
                raise InvalidRequest(f"speech.{field}", f"0 to 5 seconds, not {getattr(self, field)}")


@dataclass(frozen=True, slots=True)
class TranscriberSettings:
    """decoders: audio streams recognised at once. max_waiting_s: audio of one job that may wait. device:
    torch's name of where the model runs."""

    decoders: int = 4
    device: str = "cpu"
    max_waiting_s: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.decoders <= 64:
            raise InvalidRequest("transcription.decoders", f"1 to 64, not {self.decoders}")
        if not 1.0 <= self.max_waiting_s <= 3600.0:
            raise InvalidRequest("transcription.max_waiting_s", f"1 to 3600, not {self.max_waiting_s}")
