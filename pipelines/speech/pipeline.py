"""Speaking: text in pieces, audio in chunks, batched over jobs.

A job's text is cut into clauses as it arrives (`update`). Two kinds of slice make the audio: "acoustic"
phonemises the next clause of each row and runs the acoustic model over them; "audio" makes the next chunk
of each row, and is called "frames" where rows need the decoder for that, which costs several times as much.
Each is one commit. A third, "end", only says that a job is done whose text ended after its
last sound. Phonemising needs whole clauses and so cannot be done in `prepare`, which sees raw pieces; it
stands in the acoustic slice, one row between two yields.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.contract import Batch, Budget, Emission, Estimate, FloatArray, Job, RawAudio
from pipelines.cost import CostModel
from pipelines.errors import Exhausted, InvalidRequest, ModelBroken, NotFound, WrongState
from pipelines.limits import PITCH_LIMITS, RATE_LIMITS, SAMPLE_RATE_LIMITS
from pipelines.messages import (
    Done,
    Failed,
    FinishReason,
    Input,
    ModelInfo,
    Request,
    SpeechRequest,
    SpeechText,
    Usage,
)
from pipelines.speech.clauses import Border
from pipelines.speech.loading import LoadedSpeaker, load_speaker
from pipelines.speech.settings import SpeechSettings
from pipelines.speech.speaker import Clause, ClauseState
from pipelines.speech.spoken import SpokenState

TYPICAL_SECONDS_PER_CHARACTER = 0.065
DECODER_CHUNKS = 1.6
"""What decoding a row costs, in chunks; measured of the embedded voice."""
Steps = Generator[Emission | None, None, None]


class SpeechPipeline:
    """One voice behind `pipelines.contract.Pipeline`. Owner: the executor thread, but for `prepare`."""

    def __init__(self, name: str, loaded: LoadedSpeaker, settings: SpeechSettings | None = None) -> None:
        self._speaker = loaded.speaker
        self._settings = settings or SpeechSettings()
        self._pauses_s = {
            Border.PHRASE: 0.0 if loaded.has_pauses else self._settings.phrase_pause_s,
            Border.SENTENCE: 0.0 if loaded.has_pauses else self._settings.sentence_pause_s,
        }
        self._jobs: dict[int, Job] = {}
        self._cost = CostModel()
        self._seconds_per_character = TYPICAL_SECONDS_PER_CHARACTER
        self._info = ModelInfo(
            name=name,
            modality="speech",
            family=loaded.family,
            parameters=loaded.parameters,
            voices=loaded.speaker.voices,
            sample_rate=loaded.speaker.sample_rate,
            languages=loaded.languages,
            places=self._settings.max_jobs,
        )

    @classmethod
    def load(cls, folder: Path, *, name: str, settings: SpeechSettings | None = None) -> SpeechPipeline:
        """The voice in `folder`, warmed up: the first call is as fast as the next.

        Raises: Unsupported naming the model type; ModelBroken naming the file at fault.
        """
        settings = settings or SpeechSettings()
        return cls(name, load_speaker(folder, settings.device), settings)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> SpeechRequest | SpeechText:
        """Off the executor thread: what can be checked without state.

        Raises: InvalidRequest naming the field and its limits, NotFound naming the voices.
        """
        if not isinstance(request, SpeechRequest):
            raise InvalidRequest("model", f"{self._info.name} speaks and takes no {type(request).__name__}")
        if value is None:
            return self._checked(request)
        if not isinstance(value, SpeechText):
            raise InvalidRequest("text", f"text is expected here, not {type(value).__name__}")
        if len(value.text) > self._settings.max_characters:
            raise self._too_long()
        return value

    def admit(self, job: Job, prepared: object) -> None:
        """Raises: Exhausted where `max_jobs` are at work. Those ahead of their commit count against
        their like only: they never keep committed work out."""
        assert isinstance(prepared, SpeechRequest)
        alike = sum(1 for other in self._jobs.values() if other.committed == job.committed)
        if alike >= self._settings.max_jobs:
            raise Exhausted(
                f"{self._info.name} speaks to {self._settings.max_jobs} listeners already",
                retry_after_s=self._next_free_s(),
            )
        job.state = SpokenState()
        self._jobs[job.id] = job

    def update(self, job: Job, prepared: object) -> None:
        """More text; cheap (20 microseconds a token, 5 ms for the longest text allowed).

        Raises: InvalidRequest (too much text, or none at all), WrongState after the final text.
        """
        assert isinstance(prepared, SpeechText)
        state = _state(job)
        if state.final:
            raise WrongState("text: the final text has been given already", field="text")
        if state.unspoken + len(prepared.text) > self._settings.max_characters:
            raise self._too_long()
        state.add(prepared.text, final=prepared.final)
        if state.exhausted and not state.characters:
            raise InvalidRequest(
                "text", "there is nothing to say: give at least one character that is no space"
            )

    def ready(self, job: Job) -> bool:
        """Whether a clause is complete, audio is pending, or only `Done` is left to say."""
        state = _state(job)
        has_work = state.speaking is not None or state.next_clause is not None
        return not state.done and (has_work or state.exhausted)

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        """The most urgent job decides the kind; others of the same kind and class join while the budget
        lasts. Those of a less urgent class only take the places that are free in a call of the model, where
        they cost a third of a slice of their own, and only where nobody waits for a first sound."""
        rows: list[Job] = []
        for job in ready:
            if rows and job.rank > rows[0].rank and not self._has_places(rows):
                break
            if not rows or _next_kind(_state(job)) == _next_kind(_state(rows[0])):
                rows.append(job)
            if len(rows) == self._settings.max_rows:
                break
        while rows:
            batch = self._batch(rows)
            if len(rows) == 1 or self._cost.estimate(batch).p90_ms <= budget.slice_ms:
                return batch
            rows.pop()
        return None

    def _has_places(self, rows: Sequence[Job]) -> bool:
        states = [_state(row) for row in rows]
        heard = all(state.speaking is not None and state.samples for state in states)
        return heard and len(rows) % self._speaker.rows_at_once > 0

    def _batch(self, rows: Sequence[Job]) -> Batch:
        """Units: characters for acoustics; chunks, and for what is decoded as many as that costs."""
        states = [_state(job) for job in rows]
        kind, units = _next_kind(states[0]), float(len(rows))
        if kind == "acoustic":
            clauses = [state.next_clause for state in states]
            units = float(sum(len(clause.text) for clause in clauses if clause is not None))
        elif kind == "audio":
            speaking = [state.speaking for state in states]
            decoded = self._speaker.decodes([state for state in speaking if state is not None])
            kind, units = "frames" if decoded else "audio", units + DECODER_CHUNKS * decoded
        return Batch(self._info.name, kind, tuple(rows), units)

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        """One slice. Raises: ModelBroken where the audio is not finite."""
        if batch.kind == "acoustic":
            return self._begin(batch)
        if batch.kind == "end":
            return self._end(batch)
        return self._speak(batch)

    def estimate(self, batch: Batch) -> Estimate:
        return self._cost.estimate(batch)

    def observe(self, batch: Batch, device_ms: float) -> None:
        self._cost.observe(batch, device_ms)

    def holders(self) -> Iterable[Job]:
        return self._jobs.values()

    def leased(self, job: Job) -> int:
        """Samples whose acoustics are held."""
        speaking = _state(job).speaking
        return speaking.remaining_samples if speaking is not None else 0

    def keeps(self, job: Job, budget: Budget) -> int:
        """Nothing: a clause's acoustics are made again faster than its first chunk is heard."""
        return 0

    def evict(self, job: Job, keep: int) -> None:
        """The clause in progress is begun again later; chunks that were given are not given twice."""
        _state(job).forget_acoustics()

    def release(self, job: Job) -> None:
        state = _state(self._jobs.pop(job.id))
        if state.done and state.characters:
            seconds = state.samples / self._speaker.sample_rate
            self._seconds_per_character += 0.2 * (seconds / state.characters - self._seconds_per_character)

    # --- slices -----------------------------------------------------------------------------------------

    def _begin(self, batch: Batch) -> Steps:
        clauses: list[Clause] = []
        for job in batch.rows:
            clauses.append(self._clause(job))
            yield None
        begun = yield from self._speaker.begin(clauses)
        for job, speaking in zip(batch.rows, begun, strict=True):
            _state(job).begun(speaking)
        yield from self._ended(batch)

    def _speak(self, batch: Batch) -> Steps:
        states = [_state(job).speaking for job in batch.rows]
        made = yield from self._speaker.chunk([state for state in states if state is not None])
        spoken: list[Emission] = []
        for job, (samples, speaking) in zip(batch.rows, made, strict=True):
            if not np.isfinite(samples).all():
                message = f"{self._info.name} made audio that is not finite"
                spoken.append(Emission(job, Failed(ModelBroken.__name__, message)))
                _state(job).done = True
            elif (audio := self._commit_chunk(job, samples, speaking)) is not None:
                spoken.append(Emission(job, audio))
        yield from [*spoken, *self._ended(batch)]

    def _end(self, batch: Batch) -> Steps:
        yield from self._ended(batch)

    def _clause(self, job: Job) -> Clause:
        """What to say next."""
        state, request = _state(job), job.request
        assert isinstance(request, SpeechRequest)
        assert state.next_clause is not None
        symbols = self._speaker.phonemize(state.next_clause.text)
        return Clause(symbols, request.rate, request.pitch, request.voice, state.before)

    def _commit_chunk(self, job: Job, samples: FloatArray, speaking: ClauseState | None) -> RawAudio | None:
        """Commit of one row; None for a chunk that the listener has had before an eviction."""
        state = _state(job)
        pause = self._pause(job) if state.given == 0 else 0
        if not state.advanced(speaking):
            return None
        if pause:
            samples = np.concatenate([np.zeros(pause, np.float32), samples])
        state.samples += len(samples)
        return RawAudio(samples, self._speaker.sample_rate)

    def _pause(self, job: Job) -> int:
        """Samples of silence before the next clause."""
        assert isinstance(job.request, SpeechRequest)
        after = _state(job).pause_after
        seconds = self._pauses_s.get(after, 0.0) if after is not None else 0.0
        return round(seconds / job.request.rate * self._speaker.sample_rate)

    def _ended(self, batch: Batch) -> list[Emission]:
        """`Done` for each row that has said everything; part of the commit."""
        emissions = []
        for job in batch.rows:
            state = _state(job)
            if state.exhausted:
                state.done = True
                audio_ms = round(state.samples * 1000 / self._speaker.sample_rate)
                usage = Usage(characters=state.characters, audio_ms=audio_ms)
                emissions.append(Emission(job, Done(FinishReason.STOP, usage)))
        return emissions

    # --- checks -----------------------------------------------------------------------------------------

    def _checked(self, request: SpeechRequest) -> SpeechRequest:
        low, high = SAMPLE_RATE_LIMITS
        if request.sample_rate and not low <= request.sample_rate <= high:
            raise InvalidRequest(
                "voice.sample_rate",
                f"0 (the voice's own) or {low} to {high} Hz, not {request.sample_rate}",
            )
        for field, value, limits in (
            ("voice.rate", request.rate, RATE_LIMITS),
            ("voice.pitch", request.pitch, PITCH_LIMITS),
        ):
            if not (math.isfinite(value) and limits[0] <= value <= limits[1]):
                raise InvalidRequest(field, f"a number from {limits[0]} to {limits[1]}, not {value}")
        if request.voice and request.voice not in self._speaker.voices:
            names = ", ".join(self._speaker.voices)
            message = f"voice.voice: {self._info.name} has no voice {request.voice!r}; it has {names}"
            raise NotFound(message, field="voice.voice")
        return request

    def _too_long(self) -> InvalidRequest:
        limit = self._settings.max_characters
        return InvalidRequest("text", f"at most {limit} characters may wait to be spoken")

    def _next_free_s(self) -> float:
        """When the first of the present jobs will have been heard, as far as its text is known."""
        waits = []
        for state in map(_state, self._jobs.values()):
            pending = state.speaking.remaining_samples if state.speaking is not None else 0
            seconds = state.unspoken * self._seconds_per_character + pending / self._speaker.sample_rate
            waits.append(seconds)
        return max(0.5, min(waits))


def _state(job: Job) -> SpokenState:
    assert isinstance(job.state, SpokenState)
    return job.state


def _next_kind(state: SpokenState) -> str:
    """Of the job's next slice, whatever the decoder has to do for it."""
    if state.speaking is not None:
        return "audio"
    return "acoustic" if state.next_clause is not None else "end"
