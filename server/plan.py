"""The settings of a conversation, checked and with its models chosen."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from pipelines.messages import ImageRequest, JobClass, Message, ModelInfo, Sampling, SpeechRequest
from pipelines.simultaneous.policies import Policy, everything
from pipelines.simultaneous.segments import Segmenter, sentences

RESERVED_TOKENS = 32


class Mode(enum.IntEnum):
    """What is done with a prompt before its commit; each includes the one before it."""

    OFF = 0
    PREFILL = 1
    ANSWER_AHEAD = 2
    THINK_AHEAD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What is done before a commit. policy: when, and on how much of the prompt. With THINK_AHEAD segmenter
    cuts it into pieces, thinker thinks where it is not the text model, and thoughts are reported if wanted.
    emit_before_commit: answers ahead are shown, and discarded where they turn out wrong.
    """

    mode: Mode = Mode.PREFILL
    policy: Policy = everything
    segmenter: Segmenter = sentences
    thinker: ModelInfo | None = None
    thoughts: bool = False
    emit_before_commit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `start` said. A model is None where its modality is not wanted.

    drawing: the image's request, whose empty prompt stands for the user's; draw_on_request: only where the
    text model asks, with its caption. audio_sample_rate in Hz, 0 if no audio will come.
    commit_on_silence: a spoken prompt is complete when the speaker stops. interrupt_on_speech: the microphone
    stays open, and speech ends the answer and begins the next turn.
    """

    tenant: str
    text: ModelInfo | None = None
    speech: ModelInfo | None = None
    image: ModelInfo | None = None
    transcription: ModelInfo | None = None
    job_class: JobClass = JobClass.INTERACTIVE
    image_class: JobClass = JobClass.STANDARD
    ahead: Ahead = Ahead()
    sampling: Sampling = field(default_factory=Sampling)
    cache_scope: str = ""
    voice: SpeechRequest = field(default_factory=SpeechRequest)
    drawing: ImageRequest = field(default_factory=lambda: ImageRequest(""))
    draw_on_request: bool = False
    history: tuple[Message, ...] = ()
    resume_window_s: float = 0.0
    audio_sample_rate: int = 0
    commit_on_silence: bool = False
    interrupt_on_speech: bool = False

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """Those that will answer."""
        chosen = (self.text, self.speech, self.image, self.transcription)
        return tuple(model for model in chosen if model is not None)

    @property
    def budget_tokens(self) -> int:
        """What history and prompt may take of the context; 0 if it has no limit."""
        if self.text is None or not self.text.context_tokens:
            return 0
        answer = min(self.sampling.max_tokens, self.text.context_tokens // 2)
        return max(1, self.text.context_tokens - answer - RESERVED_TOKENS)
