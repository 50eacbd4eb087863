"""A device and a clock for tests of the gateway: no torch, no process, no waiting."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipelines.errors import DeviceLost
from pipelines.messages import (
    AudioChunk,
    Cancel,
    Chunk,
    Credits,
    DeviceTimings,
    Done,
    Down,
    Emit,
    Failed,
    FinishReason,
    ImageChunk,
    ImageRequest,
    ModelInfo,
    Promote,
    PromptRevision,
    SpeechAudio,
    SpeechRequest,
    SpeechText,
    Stats,
    Submit,
    TextRequest,
    TokenChunk,
    TranscribeRequest,
    TranscriptChunk,
    Update,
    Usage,
)
from server.clock import Timer
from server.executor.link import JobHandle, JobOrder, JobTable

TEXT = ModelInfo("fake-text", "text", "llama", 1000, context_tokens=512)
SPEECH = ModelInfo("fake-speech", "speech", "vits", 1000, voices=("ann", "bob"), sample_rate=16_000)
IMAGE = ModelInfo(
    "fake-image", "image", "stable-diffusion", 1000, sizes=((64, 64),), max_steps=50, default_steps=8,
    schedulers=("ddim", "euler"), loras=("ink", "oil"),
)  # fmt: skip
EAR = ModelInfo("fake-ear", "transcription", "pocketsphinx", 1000, languages=("en",))
MODELS = (TEXT, SPEECH, IMAGE, EAR)
TIMINGS = DeviceTimings(queue_ms=1.0, device_ms=2.0, preemptions=1, evictions=0, slices=3)
STOP = FinishReason.STOP


class FakeTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self._now = 100.0
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self._now + delay_s, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            self._now, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()
        self._now = end


@dataclass(slots=True)
class FakeJob:
    """One job as the fake device sees it."""

    submit: Submit
    credits: int
    inputs: list[object] = field(default_factory=list)
    waiting: deque[Chunk] = field(default_factory=deque)
    cancelled: bool = False
    promoted: bool = False


Script = Callable[["FakeLink", Down], None]


class FakeLink:
    """Implements Link. `sent` records what goes down; `script` answers it; `emit` spends credits and parks
    what has none."""

    def __init__(self, models: tuple[ModelInfo, ...] = MODELS, script: Script | None = None) -> None:
        self.loaded = models
        self.script = script
        self.sent: list[Down] = []
        self.jobs: dict[int, FakeJob] = {}
        self.is_up = True
        self.traced = b"{}"
        self._table = JobTable(self._send)
        self._callbacks: list[Callable[[bool], None]] = []
        self._news = asyncio.Event()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        return self.loaded

    @property
    def up(self) -> bool:
        return self.is_up

    @property
    def stats(self) -> Stats:
        return Stats(len(self.jobs), 0, 0, 0, 0, 0.0, 1.5)

    async def start(self) -> None:
        self.is_up = True

    async def stop(self) -> None:
        self._table.fail_all("the server is stopping")

    def submit(self, order: JobOrder) -> JobHandle:
        if not self.is_up:
            raise DeviceLost("the device is down", retry_after_s=2.0)
        modality = next(model.modality for model in self.loaded if model.name == order.pipeline)
        return self._table.submit(order, modality)

    def on_change(self, callback: Callable[[bool], None]) -> None:
        self._callbacks.append(callback)

    async def trace(self, seconds: float) -> bytes:
        return self.traced

    # --- what a test does -----------------------------------------------------------------------------

    def emit(self, job_id: int, *chunks: Chunk) -> None:
        """The device has produced these."""
        job = self.jobs[job_id]
        job.waiting.extend(chunks)
        self._flush(job_id, job)

    def die(self) -> None:
        """The device process is gone."""
        self.is_up = False
        self._table.fail_all("the device process died")
        self._tell()

    def revive(self) -> None:
        self.is_up = True
        self._tell()

    def reset(self, script: Script | None) -> None:
        """Forget what was sent; answer by `script` from now on."""
        self.sent.clear()
        self.script = script

    def submitted(self, kind: type) -> list[Submit]:
        """The submits whose request is of that kind, in order."""
        return [each for each in self.sent if isinstance(each, Submit) and isinstance(each.request, kind)]

    def cancelled(self) -> list[int]:
        return [each.job_id for each in self.sent if isinstance(each, Cancel)]

    def inputs(self, job_id: int) -> list[object]:
        """Everything a job was given, the first input included."""
        return self.jobs[job_id].inputs

    async def sees(self, condition: Callable[[], bool]) -> None:
        """Returns once `condition()` holds after a message. Raises: TimeoutError."""
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def _send(self, message: Down) -> None:
        self.sent.append(message)
        match message:
            case Submit(job_id=job_id):
                self.jobs[job_id] = FakeJob(message, message.credits)
                if message.first is not None:
                    self.jobs[job_id].inputs.append(message.first)
            case Update(job_id=job_id, input=value):
                self.jobs[job_id].inputs.append(value)
            case Promote(job_id=job_id):
                self.jobs[job_id].promoted = True
            case Cancel(job_id=job_id):
                self.jobs[job_id].cancelled = True
                self.jobs[job_id].waiting.clear()
            case Credits(job_id=job_id, count=count):
                self.jobs[job_id].credits += count
                self._flush(job_id, self.jobs[job_id])
            case _:
                raise AssertionError(f"the gateway does not send {message}")
        self._news.set()
        if self.script is not None:
            self.script(self, message)

    def _flush(self, job_id: int, job: FakeJob) -> None:
        while job.waiting and not job.cancelled:
            free = isinstance(job.waiting[0], Done | Failed)
            if not free and job.credits == 0:
                return
            job.credits -= 0 if free else 1
            self._table.deliver(Emit(job_id, job.waiting.popleft()))

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback(self.is_up)


def tokens(text: str, revision: int = 0, wasted: int = 0) -> list[Chunk]:
    """One chunk a word, spaces kept. wasted: what the last one says of it."""
    words = [word + " " for word in text.split(" ")]
    words[-1] = words[-1][:-1]
    places = range(wasted - len(words) + 1, wasted + 1)
    return [
        TokenChunk(word, (index,), revision, wasted=max(0, place))
        for index, (word, place) in enumerate(zip(words, places, strict=True))
    ]


def audio(start_ms: int, length_ms: int, sample_rate: int = 16_000) -> AudioChunk:
    return AudioChunk(b"\1\0" * (sample_rate * length_ms // 1000), sample_rate, start_ms)


def picture(final: bool, step: int = 8, size: int = 100) -> ImageChunk:
    return ImageChunk(bytes(size), "image/png", 64, 64, step, 8, final)


@dataclass(slots=True)
class Device:
    """A script: pipelines that answer at once. Speech is 60 ms a character; a transcript is what was set."""

    answer: str = "Hello there, friend."
    transcript: str = "good morning"
    previews: Sequence[int] = (4,)
    image_bytes: int = 100
    spoken_ms: dict[int, int] = field(default_factory=dict)

    def __call__(self, link: FakeLink, message: Down) -> None:
        match message:
            case Submit(job_id=job_id, request=TextRequest(), first=PromptRevision() as revision):
                self._text(link, job_id, revision)
            case Submit(job_id=job_id, request=ImageRequest()):
                self._image(link, job_id)
            case Submit(job_id=job_id, request=TranscribeRequest(), first=SpeechAudio() as sound):
                self._hear(link, job_id, sound)
            case Submit(request=SpeechRequest()):
                return
            case Update(job_id=job_id, input=PromptRevision() as revision):
                self._text(link, job_id, revision)
            case Update(job_id=job_id, input=SpeechText() as text):
                self._speak(link, job_id, text)
            case Update(job_id=job_id, input=SpeechAudio() as sound):
                self._hear(link, job_id, sound)
            case _:
                return

    def _text(self, link: FakeLink, job_id: int, revision: PromptRevision) -> None:
        if revision.final:
            chunks = tokens(self.answer, revision.number)
            usage = Usage(prompt_tokens=5, completion_tokens=len(chunks), reused_tokens=revision.number)
            link.emit(job_id, *chunks, Done(STOP, usage, TIMINGS))

    def _image(self, link: FakeLink, job_id: int) -> None:
        for step in self.previews:
            link.emit(job_id, picture(False, step))
        link.emit(job_id, picture(True, size=self.image_bytes), Done(STOP, Usage(evaluations=8), TIMINGS))

    def _speak(self, link: FakeLink, job_id: int, text: SpeechText) -> None:
        start_ms = self.spoken_ms.get(job_id, 0)
        length_ms = 60 * len(text.text)
        self.spoken_ms[job_id] = start_ms + length_ms
        if length_ms:
            link.emit(job_id, audio(start_ms, length_ms))
        if text.final:
            usage = Usage(characters=self.spoken_ms[job_id] // 60, audio_ms=self.spoken_ms[job_id])
            link.emit(job_id, Done(STOP, usage, TIMINGS))

    def _hear(self, link: FakeLink, job_id: int, sound: SpeechAudio) -> None:
        if sound.final:
            link.emit(
                job_id, TranscriptChunk(self.transcript, 1.0, True, 0, 500), Done(STOP, Usage(), TIMINGS)
            )
        else:
            link.emit(job_id, TranscriptChunk(self.transcript.split()[0], 0.5, False, 0, 100))
