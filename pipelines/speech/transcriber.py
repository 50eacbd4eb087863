"""Recognising: audio in pieces of any rate, words while they are spoken, one final transcript an utterance.

A slice looks for speech in the audio that has come and decodes one stretch of 30 ms, or ends an utterance.
The decoder cannot go back, so a slice has no preemption point before its commit: it is as long as the time
between two points may be (see `Recogniser`). Decoders are slow to make: there is a pool of them, and a job
has one until it is released.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipelines.contract import Batch, Budget, Emission, Emitted, Estimate, Job
from pipelines.cost import CostModel
from pipelines.errors import Exhausted, InvalidRequest, Unsupported, WrongState
from pipelines.limits import SAMPLE_RATE_LIMITS
from pipelines.messages import (
    Done,
    FinishReason,
    Input,
    ModelInfo,
    Request,
    SpeechAudio,
    TranscribeRequest,
    TranscriptChunk,
    Usage,
)
from pipelines.speech.hearing import Hearing, Silence, Voiced
from pipelines.speech.recogniser import Recogniser
from pipelines.speech.settings import TranscriberSettings

LANGUAGES = ("en", "en-US")
TYPICAL_UTTERANCE_S = 4.0
DECODING_S_PER_AUDIO_S = 0.2


@dataclass(slots=True)
class HeardState:
    """Owner: the executor thread. `words` is the last hypothesis of the utterance in progress."""

    recogniser: Recogniser
    hearing: Hearing
    final: bool = False
    done: bool = False
    samples: int = 0
    words: tuple[str, ...] = field(default_factory=tuple)


class TranscriberPipeline:
    """pocketsphinx behind `pipelines.contract.Pipeline`. Owner: the executor thread, but for `prepare`."""

    def __init__(self, name: str, settings: TranscriberSettings | None = None) -> None:
        self._settings = settings or TranscriberSettings()
        self._free = [Recogniser() for _ in range(self._settings.decoders)]
        self._jobs: dict[int, HeardState] = {}
        self._cost = CostModel()
        self._info = ModelInfo(
            name=name,
            modality="transcription",
            family="pocketsphinx",
            parameters=0,
            sample_rate=16_000,
            languages=LANGUAGES,
            places=self._settings.decoders,
        )

    @classmethod
    def load(cls, *, name: str, settings: TranscriberSettings | None = None) -> TranscriberPipeline:
        """Takes about a second and 90 MB a decoder."""
        return cls(name, settings)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> TranscribeRequest | SpeechAudio:
        """Off the executor thread: what can be checked without state.

        Raises: InvalidRequest naming the field and its limits, Unsupported naming the languages.
        """
        if not isinstance(request, TranscribeRequest):
            raise InvalidRequest("model", f"{self._info.name} listens and takes no {type(request).__name__}")
        if value is None:
            return _checked(request)
        if not isinstance(value, SpeechAudio):
            raise InvalidRequest("audio", f"audio is expected here, not {type(value).__name__}")
        if len(value.pcm16) % 2:
            raise InvalidRequest(
                "audio.pcm16", f"samples are 2 bytes each, so {len(value.pcm16)} bytes cannot be right"
            )
        return value

    def admit(self, job: Job, prepared: object) -> None:
        """Raises: Exhausted where every decoder is in use."""
        assert isinstance(prepared, TranscribeRequest)
        if not self._free:
            raise Exhausted(
                f"{self._info.name} listens to {self._settings.decoders} speakers already",
                retry_after_s=min(_expected_s(state) for state in self._jobs.values()),
            )
        job.state = self._jobs[job.id] = HeardState(self._free.pop(), Hearing(prepared.sample_rate))

    def update(self, job: Job, prepared: object) -> None:
        """More audio; it is only kept here. Raises: InvalidRequest (too much), WrongState after the end."""
        assert isinstance(prepared, SpeechAudio)
        state, request = _state(job), _request(job)
        if state.final:
            raise WrongState("audio: the final audio has been given already", field="audio")
        limit = self._settings.max_waiting_s
        if state.hearing.waiting_s + len(prepared.pcm16) / 2 / request.sample_rate > limit:
            raise InvalidRequest("audio.pcm16", f"at most {limit:g} seconds may wait to be recognised")
        state.hearing.push(prepared.pcm16, final=prepared.final)
        state.samples += len(prepared.pcm16) // 2
        state.final = prepared.final

    def ready(self, job: Job) -> bool:
        """Whether there is audio to look at, speech to decode, or only `Done` left to say."""
        state = _state(job)
        return not state.done and (state.hearing.can_step or bool(state.hearing.found) or state.hearing.over)

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        """The most urgent job alone: decoders share no work."""
        job = next(iter(ready), None)
        return Batch(self._info.name, "listen", (job,), 1.0) if job is not None else None

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        """One slice, committed before its first yield."""
        (job,) = batch.rows
        yield from [Emission(job, chunk) for chunk in self._listen(job)]

    def estimate(self, batch: Batch) -> Estimate:
        return self._cost.estimate(batch)

    def observe(self, batch: Batch, device_ms: float) -> None:
        self._cost.observe(batch, device_ms)

    def leased(self, job: Job) -> int:
        """Nothing: a decoder's state cannot be made again."""
        return 0

    def keeps(self, job: Job, budget: Budget) -> int:
        """Nothing, see `leased`."""
        return 0

    def evict(self, job: Job, keep: int) -> None:
        """Changes nothing, see `leased`."""

    def release(self, job: Job) -> None:
        """The decoder goes back to the pool, as good as new."""
        state = self._jobs.pop(job.id)
        state.recogniser.reset()
        self._free.append(state.recogniser)

    def _listen(self, job: Job) -> list[Emitted]:
        """The slice: what there is to tell."""
        state, request = _state(job), _request(job)
        hearing = state.hearing
        if not hearing.found and hearing.can_step:
            hearing.step()
        told: TranscriptChunk | None = None
        if hearing.found:
            match hearing.found.popleft():
                case Voiced() as voiced:
                    told = _decode(state, voiced, request.interim)
                case Silence(start_ms, end_ms):
                    text = state.recogniser.finish()
                    state.words = ()
                    told = TranscriptChunk(text, 1.0, True, start_ms, end_ms) if text else None
        chunks: list[Emitted] = [told] if told is not None else []
        if hearing.over and not hearing.found:
            state.done = True
            audio_ms = round(state.samples * 1000 / request.sample_rate)
            chunks.append(Done(FinishReason.STOP, Usage(audio_ms=audio_ms)))
        return chunks


def _decode(state: HeardState, voiced: Voiced, interim: bool) -> TranscriptChunk | None:
    """One stretch of speech; the hypothesis where it has changed and the client wants to see it.

    Its stability is the share of its words that stood in the same place of the one before.
    """
    if voiced.starts:
        state.recogniser.start()
    state.recogniser.feed(voiced.pcm16)
    words = tuple(state.recogniser.text().split()) if interim else ()
    if not words or words == state.words:
        return None
    kept = sum(new == old for new, old in zip(words, state.words, strict=False))
    state.words = words
    return TranscriptChunk(" ".join(words), kept / len(words), False, voiced.start_ms, voiced.end_ms)


def _checked(request: TranscribeRequest) -> TranscribeRequest:
    low, high = SAMPLE_RATE_LIMITS
    if not low <= request.sample_rate <= high:
        raise InvalidRequest("sample_rate", f"{low} to {high} Hz, not {request.sample_rate}")
    known = {language.lower() for language in LANGUAGES}
    if request.language and request.language.lower() not in known:
        raise Unsupported(
            f"language: {request.language!r} is not known; known: {', '.join(LANGUAGES)}", field="language"
        )
    return request


def _expected_s(state: HeardState) -> float:
    """When the job may be over: what has come is decoded, and one more utterance if it goes on."""
    seconds = state.hearing.waiting_s * DECODING_S_PER_AUDIO_S
    return max(0.5, seconds if state.final else seconds + TYPICAL_UTTERANCE_S)


def _state(job: Job) -> HeardState:
    assert isinstance(job.state, HeardState)
    return job.state


def _request(job: Job) -> TranscribeRequest:
    assert isinstance(job.request, TranscribeRequest)
    return job.request
