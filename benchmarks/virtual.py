"""Gateway sessions over a real executor on one thread, on a clock that skips what nobody works in.

The clock runs with the processor while there is anything to do, and jumps to the next keystroke or timer
when there is not: a prompt typed in minutes is measured in the seconds that gateway and device work, and no
step of theirs is left out, one that overhangs the commit included. What two processes do side by side is done
here one after the other.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from clients.edits import Edit, EditScript
from pipelines.contract import Budget, Emitted, Job, Pipeline
from pipelines.device import CpuDevice
from pipelines.finishing import Finisher
from pipelines.messages import AudioChunk, Down, Emit, Failed, ModelInfo, Stats, TokenChunk, Usage
from server.clock import Timer
from server.config import Config, Limits
from server.events import Discarded, Event, ImagePart, Thought, TurnDone
from server.executor.executor import DeviceExecutor
from server.executor.intake import Intake
from server.executor.link import JobHandle, JobOrder, JobTable
from server.executor.scheduler import Scheduler
from server.gateway import build
from server.plan import Plan
from server.session import Session

PROMISE_MS = 25.0
LIMITS = Limits(jobs_per_pipeline=4096)


@dataclass(slots=True)
class _Call:
    """A timer."""

    callback: Callable[[], object] | None

    def cancel(self) -> None:
        self.callback = None


class SkippingClock:
    """Seconds that `running` counts, and what was skipped. By this thread's processor time, what else runs on
    the machine does not count."""

    def __init__(self, running: Callable[[], float] = time.perf_counter) -> None:
        self._running = running
        self._skipped_s = 0.0
        self._calls: list[tuple[float, int, _Call]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._running() + self._skipped_s

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        call = _Call(callback)
        heapq.heappush(self._calls, (self.now() + delay_s, next(self._order), call))
        return call

    def run_due(self) -> bool:
        """Runs the timers that are due; whether there were any."""
        ran = False
        while self._calls and self._calls[0][0] <= self.now():
            _, _, call = heapq.heappop(self._calls)
            if call.callback is not None:
                call.callback()
                ran = True
        return ran

    def skip_to_next(self, at_s: float) -> bool:
        """To the next timer, or `at_s` if that is sooner; False if there is neither."""
        next_s = min(self._calls[0][0] if self._calls else math.inf, at_s)
        if math.isinf(next_s):
            return False
        self._skipped_s += max(0.0, next_s - self.now())
        return True


class VirtualLink:
    """Implements Link: an executor that is stepped by `Typists`."""

    def __init__(
        self, pipelines: Mapping[str, Pipeline], clock: SkippingClock, poll: Callable[[], object]
    ) -> None:
        self._pipelines = pipelines
        self._finishers: dict[int, Finisher] = {}
        self._poll = poll
        self.executor = DeviceExecutor(
            pipelines,
            Scheduler(PROMISE_MS),
            CpuDevice(1),
            Budget(60.0, PROMISE_MS),
            self._emit,
            released=self._release,
            clock=clock.now,
            give_way=self._between,
        )
        self._intake = Intake(pipelines, self.executor.inbox.post)
        self._table = JobTable(self._intake.take)

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        return tuple(pipeline.info for pipeline in self._pipelines.values())

    @property
    def up(self) -> bool:
        return True

    @property
    def stats(self) -> Stats:
        return self.executor.stats()

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def trace(self, seconds: float) -> bytes:
        return b"{}"

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """It never changes."""

    def submit(self, order: JobOrder) -> JobHandle:
        return self._table.submit(order, self._pipelines[order.pipeline].info.modality)

    def send(self, message: Down) -> None:
        self._intake.take(message)

    def _between(self) -> bool:
        """At a yield of a slice the world goes on."""
        self._poll()
        return False

    def _emit(self, job: Job, chunk: Emitted) -> None:
        if isinstance(chunk, Failed):
            self._table.deliver(Emit(job.id, chunk))
            return
        finisher = self._finishers.setdefault(job.id, Finisher(job.request))
        for finished in finisher.finish(chunk):
            self._table.deliver(Emit(job.id, finished))

    def _release(self, job_id: int) -> None:
        self._finishers.pop(job_id, None)
        self._intake.forget(job_id)


@dataclass(slots=True)
class Turn:
    """What one typist got. Milliseconds after the commit; passes: slices from the commit on."""

    text: str = ""
    first_token_ms: float = math.nan
    last_token_ms: float = math.nan
    first_audio_ms: float = math.nan
    image_ms: float = math.nan
    done_ms: float = math.nan
    passes: int = 0
    slices: int = 0
    thoughts: int = 0
    discarded: int = 0
    usage: Usage = field(default_factory=Usage)
    reason: str = ""


class Typist:
    """One session and one script, from its first edit to the turn's end."""

    def __init__(self, session: Session, script: EditScript, clock: SkippingClock, start_s: float) -> None:
        self.turn = Turn()
        self.done = False
        self.session = session
        self._clock = clock
        self._edits = script.edits
        self._start_s = start_s
        self._next = 0
        self._length = 0
        self._committed_s = math.inf
        self._passes = 0

    @property
    def due_s(self) -> float:
        """When the next edit, or something paced, is due."""
        if self._next < len(self._edits):
            return self._start_s + self._edits[self._next].at_ms / 1000.0
        return self._clock.now() + self.session.wait_s(self._clock.now()) if not self.done else math.inf

    def act(self, slices: int) -> bool:
        """Edits that are due and events that may leave; whether there were any. slices: run so far."""
        acted = False
        while self._next < len(self._edits) and self.due_s <= self._clock.now():
            self._edit(self._edits[self._next], slices)
            acted = True
        while not self.done and (event := self.session.next(self._clock.now())) is not None:
            self._take(event, slices)
            acted = True
        return acted

    def _edit(self, edit: Edit, slices: int) -> None:
        if edit.from_char == self._length:
            self.session.append(edit.text)
        else:
            self.session.revise(edit.from_char, edit.text)
        self._length = edit.from_char + len(edit.text)
        self._next += 1
        if self._next == len(self._edits):
            self._committed_s, self._passes = self._clock.now(), slices
            self.session.commit(None)

    def _take(self, event: Event, slices: int) -> None:
        turn, after_ms = self.turn, 1000.0 * (self._clock.now() - self._committed_s)
        match event.body:
            case TokenChunk(text=text):
                turn.first_token_ms = after_ms if math.isnan(turn.first_token_ms) else turn.first_token_ms
                turn.last_token_ms = after_ms
                turn.text += text
            case AudioChunk():
                turn.first_audio_ms = after_ms if math.isnan(turn.first_audio_ms) else turn.first_audio_ms
            case ImagePart(final=True):
                turn.image_ms = after_ms
            case Thought():
                turn.thoughts += 1
            case Discarded():
                turn.text, turn.discarded = "", turn.discarded + 1
            case TurnDone(reason=reason, usage=usage, timings=timings):
                turn.done_ms, turn.usage, turn.reason = after_ms, usage, reason.name
                turn.passes = slices - self._passes
                turn.slices = sum(job.slices for job in timings.jobs.values())
                self.done = True


class Typists:
    """Many sessions at one device. `limits` is what the gateway lets in, `running` counts seconds of work."""

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        limits: Limits = LIMITS,
        running: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.clock = SkippingClock(running)
        self.link = VirtualLink(pipelines, self.clock, self._poll)
        self.gateway = build(Config(limits=limits), self.link, self.clock)
        self._typists: list[Typist] = []
        self._polling = False

    def turn(self, plan: Plan, script: EditScript) -> Turn:
        """One session, alone."""
        (turn,) = self.turns([(plan, script, 0.0)])
        return turn

    def turns(self, wanted: list[tuple[Plan, EditScript, float]]) -> list[Turn]:
        """All of them at once, each from its own second on."""
        now_s = self.clock.now()
        self._typists = [
            Typist(self.gateway.session(plan), script, self.clock, now_s + start_s)
            for plan, script, start_s in wanted
        ]
        while not all(typist.done for typist in self._typists):
            acted = self._poll()
            if not self.link.executor.step() and not acted:
                due_s = min(typist.due_s for typist in self._typists)
                assert self.clock.skip_to_next(due_s), "nothing is left to happen, and a turn has not ended"
        finished = [typist.turn for typist in self._typists]
        for typist in self._typists:
            typist.session.drop()
        while self.link.executor.step():
            continue
        return finished

    def _poll(self) -> bool:
        if self._polling:
            return False
        self._polling = True
        acted = self.clock.run_due()
        slices = self.link.executor.counters.slices
        for typist in self._typists:
            if not typist.done:
                acted = typist.act(slices) or acted
        self._polling = False
        return acted
