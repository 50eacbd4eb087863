"""One run of the preemption benchmark: arrivals, listeners and readers around a real executor.

Time is the executor thread's CPU time, and while nothing is to do the clock jumps to the next event. So the
figures are those of a core that does nothing else, however busy the machine is meanwhile, and idle time
costs nothing. Models, executor and policy are the real ones; only waiting is skipped.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from benchmarks.delays import Watched, watching
from benchmarks.load import Arrival
from pipelines.contract import Budget, Emitted, Job, Pipeline, RawAudio
from pipelines.device import CpuDevice
from pipelines.messages import (
    Cancel,
    Credits,
    Done,
    Failed,
    JobClass,
    Playback,
    SpeechRequest,
    Stop,
    Submit,
    TextRequest,
    TokenChunk,
    Update,
)
from server.executor.counters import Spent
from server.executor.executor import DeviceExecutor
from server.executor.inbox import Arrival as Message
from server.executor.intake import Intake
from server.executor.link import CREDITS
from server.executor.recording import Recording
from server.executor.scheduler import Scheduler
from server.pacing import Pacer

PROMISE_MS = 25.0
BUDGET = Budget(60.0, PROMISE_MS)


class CoreClock:
    """CPU seconds of this thread, plus what was skipped."""

    def __init__(self) -> None:
        self._skipped_s = -time.thread_time()

    def now(self) -> float:
        return time.thread_time() + self._skipped_s

    def skip_to(self, when_s: float) -> None:
        self._skipped_s += max(0.0, when_s - self.now())


@dataclass(slots=True)
class Stream:
    """What one job gave: (when, seconds of audio or number of tokens) of each chunk; seconds by the clock.
    refused: admission said that it could not be served in time."""

    kind: str
    at_s: float
    chunks: list[tuple[float, float]] = field(default_factory=list)
    done_s: float = math.inf
    refused: bool = False

    @property
    def first_ms(self) -> float:
        """From arrival to the first chunk."""
        return (self.chunks[0][0] - self.at_s) * 1000

    @property
    def total_ms(self) -> float:
        """From arrival to the end."""
        return (self.done_s - self.at_s) * 1000

    def gaps(self) -> list[tuple[float, float]]:
        """(seconds since the chunk before, what that one holds) of every chunk but the first."""
        pairs = pairwise(self.chunks)
        return [(after - before, held) for (before, held), (after, _) in pairs]

    def dry_s(self) -> float:
        """Silence inside a voice that is played from its first chunk on."""
        return sum(self._silences())

    def underruns(self) -> int:
        """How often that voice fell silent."""
        return len(list(self._silences()))

    def _silences(self) -> Iterator[float]:
        ends_s = math.inf
        for when, seconds in self.chunks:
            if when > ends_s:
                yield when - ends_s
            ends_s = (when if ends_s == math.inf else max(when, ends_s)) + seconds


class Listener:
    """Plays a voice: chunks wait for their turn as in the gateway, 400 ms ahead; the device is told."""

    def __init__(self, job_id: int, intake: Intake) -> None:
        self._job_id = job_id
        self._intake = intake
        self._pacer = Pacer()
        self._waiting: deque[float] = deque()

    def heard(self, audio_ms: float, now_s: float) -> None:
        """A chunk has come up."""
        self._waiting.append(audio_ms)
        self.pump(now_s)

    def pump(self, now_s: float) -> None:
        """Write what may be written; each chunk gives its credit back."""
        while self._waiting and self._pacer.wait_s(self._waiting[0], now_s) <= 1e-9:
            self._pacer.wrote(self._waiting.popleft(), now_s)
            played, ahead = self._pacer.played_ms(now_s), self._pacer.buffered_ms(now_s)
            self._intake.take(Credits(self._job_id, 1))
            self._intake.take(Update(self._job_id, Playback(round(played), round(ahead))))

    def next_s(self, now_s: float) -> float:
        """When the next chunk may be written."""
        return now_s + self._pacer.wait_s(self._waiting[0], now_s) if self._waiting else math.inf


@dataclass(slots=True)
class Outcome:
    """Of one arm: streams by job number, the executor's counters, and what the policy was seen to do."""

    streams: dict[int, Stream] = field(default_factory=dict)
    busy_s: float = 0.0
    preemptions: int = 0
    evictions: int = 0
    swaps: int = 0
    longest_gap_ms: float = 0.0
    last_arrival_s: float = 0.0
    cost_error: dict[str, float] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)
    seen: Watched = field(default_factory=Watched)


class Run:
    """All arrivals under one policy, on this thread, in the thread's CPU time."""

    def __init__(
        self,
        pipelines: dict[str, Pipeline],
        policy: type[Scheduler],
        plan: list[Arrival],
        recording: Recording | None = None,
        scope: str = "",
        until_s: float = math.inf,
    ) -> None:
        """scope: of cached prefixes, so that a later run finds nothing of an earlier one. until_s: the end,
        whoever is not done yet."""
        self._until_s = until_s
        self._scope = scope
        self.outcome = Outcome()
        self._clock = CoreClock()
        self._plan = plan
        self._upcoming = 0
        self._left = len(plan)
        self._listeners: dict[int, Listener] = {}
        self._next_play_s = math.inf
        self._executor = DeviceExecutor(
            pipelines,
            watching(policy, self._clock.now, self.outcome.seen)(PROMISE_MS),
            CpuDevice(1),
            BUDGET,
            self._emit,
            clock=self._clock.now,
            recording=recording,
            give_way=self._events,
        )
        self._intake = Intake(pipelines, self._executor.inbox.post)

    def go(self) -> Outcome:
        """Until every job has ended, or the time is over."""
        while self._left and self._clock.now() < self._until_s:
            self._events()
            if not self._executor.step():
                self._clock.skip_to(min(self._next_arrival_s(), self._next_play_s, self._until_s))
        if self._left:
            self._stop()
        counters = self._executor.counters
        self.outcome.busy_s, self.outcome.preemptions = counters.busy_s, counters.preemptions
        self.outcome.evictions, self.outcome.swaps = counters.evictions, counters.swaps
        self.outcome.longest_gap_ms = counters.gaps.longest_ms
        self.outcome.cost_error, self.outcome.spent = counters.cost_errors(), counters.spent
        return self.outcome

    def _stop(self) -> None:
        """Cancel what is left."""
        for number, stream in self.outcome.streams.items():
            if stream.done_s == math.inf:
                self._executor.inbox.post(Message(Cancel(number)))
        self._executor.inbox.post(Message(Stop()))
        self._executor.run()

    def _next_arrival_s(self) -> float:
        return self._plan[self._upcoming].at_s if self._upcoming < len(self._plan) else math.inf

    def _events(self) -> bool:
        """Arrivals and playback whose time has come; called between slices and at every yield."""
        now_s = self._clock.now()
        while self._next_arrival_s() <= now_s:
            self._upcoming += 1
            self._submit(self._upcoming, self._plan[self._upcoming - 1])
            self.outcome.last_arrival_s = now_s
        if now_s >= self._next_play_s:
            for listener in self._listeners.values():
                listener.pump(now_s)
            self._plan_playback(now_s)
        return False

    def _submit(self, number: int, each: Arrival) -> None:
        self.outcome.streams[number] = Stream(each.kind, each.at_s)
        credits, request = 1 << 30, each.request
        if isinstance(request, TextRequest):
            request = msgspec.structs.replace(request, cache_scope=self._scope)
        if each.job_class is JobClass.REALTIME and isinstance(request, SpeechRequest):
            credits = CREDITS["speech"]
            self._listeners[number] = Listener(number, self._intake)
        turn = f"t{number}"
        self._intake.take(
            Submit(
                number,
                each.pipeline,
                "s",
                turn,
                each.tenant,
                each.job_class,
                request,
                credits,
                first=each.first,
            )
        )

    def _emit(self, job: Job, chunk: Emitted) -> None:
        now_s, stream = self._clock.now(), self.outcome.streams[job.id]
        if isinstance(chunk, Failed) and chunk.kind != "Exhausted":
            raise RuntimeError(f"{stream.kind}: {chunk.message}")
        if isinstance(chunk, Done | Failed):
            stream.refused = isinstance(chunk, Failed)
            stream.done_s = now_s
            self._left -= 1
            self._listeners.pop(job.id, None)
        elif isinstance(chunk, RawAudio):
            seconds = len(chunk.samples) / chunk.sample_rate
            stream.chunks.append((now_s, seconds))
            if job.id in self._listeners:
                self._listeners[job.id].heard(seconds * 1000, now_s)
                self._plan_playback(now_s)
        else:
            tokens = len(chunk.token_ids) if isinstance(chunk, TokenChunk) else 0
            stream.chunks.append((now_s, float(tokens)))

    def _plan_playback(self, now_s: float) -> None:
        self._next_play_s = min((each.next_s(now_s) for each in self._listeners.values()), default=math.inf)
