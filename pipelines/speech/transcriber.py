"""Recognising: audio in pieces of any rate, words while they are spoken, one final transcript an utterance.

Two kinds of slice: "listen" looks for speech in up to 100 ms of what has come, "words" says what the
utterance is so far (each `LOOK_S` of speech, where the client wants to see it, and more rarely the longer it
gets) or was. What a job keeps is the sound of its utterance and the tokens last found, so it costs nothing
while its speaker is silent: audio that comes as it is spoken is searched for speech as it arrives (0.02 ms a
tenth of a second, 0.2 where it is resampled), and makes a slice where some is found.

A speaker who falls silent may have ended. So the first frame without speech is worth a look as well, 0.3 s
before the silence is certain: at just what the utterance will be if nothing more is said. Its words are then
final without another look. Looks at pauses are bounded like all others, and left out where audio waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.contract import Batch, Budget, Emission, Estimate, Job
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
from pipelines.speech.hearing import RAW_STEP_S, SAMPLE_RATE, Hearing, Silence, Voiced
from pipelines.speech.loading import model_type
from pipelines.speech.moonshine import Moonshine
from pipelines.speech.settings import TranscriberSettings

FAMILY = "moonshine"
LANGUAGES = ("en", "en-US")
FIRST_LOOK_S, LOOK_S, LOOK_SHARE = 0.8, 0.5, 0.15
"""New speech that is worth a look: at first; later; and this share of the utterance, where that is more."""
PAUSE_SHARE = 0.1
"""So much of the utterance must be new since the last pause that was looked at."""
LONGEST_S, CUT_S = 15.0, 4.0
"""A longer utterance is cut where the last `CUT_S` of it are quietest."""
QUIET_S = 0.1
TYPICAL_UTTERANCE_S = 4.0
LOOKING_S_PER_AUDIO_S = 0.2
BYTES_PER_S = 2 * SAMPLE_RATE


@dataclass(slots=True)
class Spoken:
    """An utterance: PCM16 at 16 kHz from `start_ms` to `end_ms` of the input audio. `tokens` and `words` are
    those of its first `looked` bytes, which may not all have been given out yet; so are the first `paused`
    of its last pause. Its first `ended` bytes are all of it (-1 while it goes on). goes_on: what comes before
    it was cut off."""

    start_ms: int
    end_ms: int
    pcm16: bytearray = field(default_factory=bytearray)
    looked: int = 0
    paused: int = 0
    ended: int = -1
    tokens: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    goes_on: bool = False


@dataclass(slots=True)
class HeardState:
    """Owner: the executor thread. `spoken`: the utterance in progress."""

    hearing: Hearing
    interim: bool
    open: bool = False
    spoken: Spoken | None = None
    final: bool = False
    done: bool = False
    samples: int = 0

    @property
    def rests(self) -> bool:
        """Whether nothing is said into an open microphone."""
        return self.open and self.spoken is None and not self.can_listen

    @property
    def known(self) -> bool:
        """Whether the utterance has ended, and just so was looked at before."""
        return self.spoken is not None and self.spoken.ended == self.spoken.looked

    @property
    def pause(self) -> bytes:
        """The rest of the utterance, if the pause that has begun is its end and is worth a look: one a pause,
        once everything that has come was listened to."""
        spoken, hearing = self.spoken, self.hearing
        if spoken is None or spoken.ended >= 0 or not self.interim or hearing.can_step or hearing.found:
            return b""
        size = len(spoken.pcm16) + len(rest := hearing.pause)
        return rest if size - spoken.paused > PAUSE_SHARE * size else b""

    @property
    def wants_words(self) -> bool:
        """Whether the utterance has ended, may be about to, or so much is new that it is worth a look."""
        spoken = self.spoken
        if spoken is None or spoken.ended >= 0:
            return spoken is not None and not self.known
        if self.pause:
            return True
        size, wanted_s = len(spoken.pcm16), LOOK_S if spoken.looked else FIRST_LOOK_S
        return self.interim and size - spoken.looked >= max(wanted_s * BYTES_PER_S, LOOK_SHARE * size)

    @property
    def can_listen(self) -> bool:
        return self.known or self.hearing.can_step or bool(self.hearing.found) or self.hearing.over


class TranscriberPipeline:
    """Moonshine behind `pipelines.contract.Pipeline`. Owner: the executor thread, but for `prepare`."""

    def __init__(
        self,
        name: str,
        model: Moonshine,
        languages: tuple[str, ...] = (),
        settings: TranscriberSettings | None = None,
    ) -> None:
        self._settings = settings or TranscriberSettings()
        self._model = model
        self._jobs: dict[int, HeardState] = {}
        self._cost = CostModel()
        self._info = ModelInfo(
            name=name,
            modality="transcription",
            family=FAMILY,
            parameters=model.parameters,
            sample_rate=SAMPLE_RATE,
            languages=languages,
            places=self._settings.decoders,
        )

    @classmethod
    def load(
        cls, folder: Path | None = None, *, name: str, settings: TranscriberSettings | None = None
    ) -> TranscriberPipeline:
        """The Moonshine model in a Hugging Face folder, whose languages it does not tell; the packaged one,
        which is English, where none is given. Raises: ModelBroken, Unsupported."""
        settings = settings or TranscriberSettings()
        if folder is None:
            return cls(name, Moonshine.packaged(settings.device), LANGUAGES, settings)
        if (family := model_type(folder)) != FAMILY:
            raise Unsupported(
                f"{folder}: a recogniser of type {family!r} is not supported; supported: {FAMILY}"
            )
        return cls(name, Moonshine.load(folder, settings.device), (), settings)

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
            return self._checked(request)
        if not isinstance(value, SpeechAudio):
            raise InvalidRequest("audio", f"audio is expected here, not {type(value).__name__}")
        if len(value.pcm16) % 2:
            raise InvalidRequest(
                "audio.pcm16", f"samples are 2 bytes each, so {len(value.pcm16)} bytes cannot be right"
            )
        return value

    def admit(self, job: Job, prepared: object) -> None:
        """Raises: Exhausted where as many are listened to as may be; into an open microphone nothing is said
        yet."""
        assert isinstance(prepared, TranscribeRequest)
        busy = sum(not state.rests for state in self._jobs.values())
        if busy >= self._settings.decoders and not prepared.open:
            raise Exhausted(
                f"{self._info.name} listens to {self._settings.decoders} speakers already",
                retry_after_s=min(_expected_s(state) for state in self._jobs.values()),
            )
        hearing = Hearing(prepared.sample_rate, voices_only=prepared.open)
        job.state = self._jobs[job.id] = HeardState(hearing, prepared.interim, prepared.open)

    def update(self, job: Job, prepared: object) -> None:
        """More audio; more than 100 ms of it is only kept here. Raises: InvalidRequest (too much), WrongState
        after the end."""
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
        if state.hearing.waiting_s <= RAW_STEP_S and state.hearing.can_step:
            state.hearing.step()

    def ready(self, job: Job) -> bool:
        """Whether there is audio to look at, an utterance to say, or only `Done` left to say."""
        state = _state(job)
        return not state.done and (state.wants_words or state.can_listen)

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        """The most urgent job alone. Units: seconds of the utterance; one for a look for speech."""
        job = next(iter(ready), None)
        if job is None:
            return None
        state = _state(job)
        if not state.wants_words or state.spoken is None:
            return Batch(self._info.name, "listen", (job,), 1.0)
        size = len(state.spoken.pcm16) + len(state.pause)
        return Batch(self._info.name, "words", (job,), size / BYTES_PER_S)

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        """One slice, see the module."""
        (job,) = batch.rows
        return self._say(job) if batch.kind == "words" else self._listen(job)

    def estimate(self, batch: Batch) -> Estimate:
        return self._cost.estimate(batch)

    def observe(self, batch: Batch, device_ms: float) -> None:
        self._cost.observe(batch, device_ms)

    def holders(self) -> Iterable[Job]:
        """Nobody, see `leased`."""
        return ()

    def leased(self, job: Job) -> int:
        """Nothing: a job keeps no more than what was said to it."""
        return 0

    def keeps(self, job: Job, budget: Budget) -> int:
        """Nothing, see `leased`."""
        return 0

    def evict(self, job: Job, keep: int) -> None:
        """Changes nothing, see `leased`."""

    def release(self, job: Job) -> None:
        del self._jobs[job.id]

    def _listen(self, job: Job) -> Iterator[Emission | None]:
        """Moves on in the audio, at most to the end of an utterance; says one whose words are known, and that
        one has begun."""
        state, request = _state(job), _request(job)
        hearing, spoken = state.hearing, state.spoken
        if spoken is not None and state.known:
            if (told := _ended(state, spoken, self._model.text(spoken.tokens))) is not None:
                yield Emission(job, told)
            return
        silent = spoken is None
        if not hearing.found and hearing.can_step:
            hearing.step()
        while hearing.found and (state.spoken is None or state.spoken.ended < 0):
            _heard(state, hearing.found.popleft())
        if silent and request.open and state.spoken is not None:
            yield Emission(job, TranscriptChunk("", 0.0, False, state.spoken.start_ms, state.spoken.end_ms))
        if hearing.over and not hearing.found and state.spoken is None:
            state.done = True
            audio_ms = round(state.samples * 1000 / request.sample_rate)
            yield Emission(job, Done(FinishReason.STOP, Usage(audio_ms=audio_ms)))

    def _say(self, job: Job) -> Iterator[Emission | None]:
        """What the utterance is so far, or was."""
        state = _state(job)
        spoken = state.spoken
        assert spoken is not None
        ended, pause = spoken.ended >= 0, state.pause
        pcm16 = bytes(spoken.pcm16[: spoken.ended] if ended else spoken.pcm16 + pause)
        samples = np.frombuffer(pcm16, "<i2").astype(np.float32) / 32768.0
        tokens = yield from self._model.tokens(samples, spoken.tokens)
        text = self._model.text(tokens)
        told = _ended(state, spoken, text) if ended else _so_far(spoken, tokens, text, pause)
        if told is not None:
            yield Emission(job, told)

    def _checked(self, request: TranscribeRequest) -> TranscribeRequest:
        low, high = SAMPLE_RATE_LIMITS
        if not low <= request.sample_rate <= high:
            raise InvalidRequest("sample_rate", f"{low} to {high} Hz, not {request.sample_rate}")
        known = self._info.languages
        if known and request.language and request.language.lower() not in map(str.lower, known):
            raise Unsupported(
                f"language: {request.language!r} is not known; known: {', '.join(known)}", field="language"
            )
        return request


def _heard(state: HeardState, piece: Voiced | Silence) -> None:
    """A stretch of speech joins the utterance, or the utterance has ended."""
    if isinstance(piece, Silence):
        if state.spoken is not None:
            state.spoken.ended, state.spoken.end_ms = len(state.spoken.pcm16), piece.end_ms
        return
    if state.spoken is None:
        state.spoken = Spoken(piece.start_ms, piece.end_ms)
    state.spoken.pcm16 += piece.pcm16
    state.spoken.end_ms = piece.end_ms
    if len(state.spoken.pcm16) >= LONGEST_S * BYTES_PER_S:
        state.spoken.ended = _quietest(state.spoken.pcm16)


def _quietest(pcm16: bytearray) -> int:
    """Where to cut a long utterance: bytes up to the middle of the quietest stretch near its end."""
    width = round(QUIET_S * SAMPLE_RATE)
    tail = np.frombuffer(bytes(pcm16[-round(CUT_S * BYTES_PER_S) :]), "<i2").astype(np.float64)
    loudness = (tail[: len(tail) // width * width].reshape(-1, width) ** 2).sum(axis=1)
    return len(pcm16) - 2 * len(tail) + 2 * (int(loudness.argmin()) * width + width // 2)


def _ended(state: HeardState, spoken: Spoken, text: str) -> TranscriptChunk | None:
    """Commit of a whole utterance; what stood behind a cut begins the next."""
    rest = spoken.pcm16[spoken.ended :]
    cut_ms = spoken.end_ms - len(rest) * 1000 // BYTES_PER_S
    state.spoken = Spoken(cut_ms, spoken.end_ms, rest, goes_on=True) if rest else None
    if not text and (rest or not (state.open or spoken.goes_on)):
        return None
    return TranscriptChunk(text, 1.0, True, spoken.start_ms, cut_ms, cut=bool(rest))


def _so_far(spoken: Spoken, tokens: tuple[int, ...], text: str, pause: bytes) -> TranscriptChunk | None:
    """Commit of a look; the words where they have changed, or may be the last. Their stability is the share
    of them that stood in the same place of the ones before."""
    words, before = tuple(text.split()), spoken.words
    spoken.looked, spoken.tokens, spoken.words = len(spoken.pcm16) + len(pause), tokens, words
    if pause:
        spoken.paused = spoken.looked
    if not words or (words == before and not pause):
        return None
    kept = sum(new == old for new, old in zip(words, before, strict=False))
    end_ms = spoken.end_ms + len(pause) * 1000 // BYTES_PER_S
    return TranscriptChunk(text, kept / len(words), False, spoken.start_ms, end_ms, bool(pause))


def _expected_s(state: HeardState) -> float:
    """When the job may be over: what has come is decoded, and one more utterance if it goes on."""
    seconds = state.hearing.waiting_s * LOOKING_S_PER_AUDIO_S
    return max(0.5, seconds if state.final else seconds + TYPICAL_UTTERANCE_S)


def _state(job: Job) -> HeardState:
    assert isinstance(job.state, HeardState)
    return job.state


def _request(job: Job) -> TranscribeRequest:
    assert isinstance(job.request, TranscribeRequest)
    return job.request
