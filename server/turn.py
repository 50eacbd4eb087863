"""One prompt and what it produced: merges its jobs' lanes into one stream of events.

Rules:
  1. `next` decides and returns in one call on the event loop, and its caller writes what it returns at
     once: whatever `stop` has ended cannot leave any more.
  2. The last event is TurnDone, exactly once. `done` is set at the end, also where `next` raises.
  3. Sequence numbers grow by one from 1.
Owner: the event loop. Time is injected; nothing here waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pipelines.errors import DeviceLost, UpbeatError
from pipelines.messages import Done, FinishReason
from server.events import Body, Event, TurnDone
from server.lanes import Lane
from server.outcome import Outcome

ORDER = {"transcription": 0, "thought": 0, "speech": 1, "text": 2, "image": 3}


class Turn:
    """Lanes are added as jobs are submitted; `seal` says that the turn may end when they have.

    in_band: failures end the turn with FAILED instead of being raised from `next` (DeviceLost always is).
    wake: called when `next` may have something new. lane_done(lane): a job has ended well.
    forgive(lane): whether the turn goes on as if the failed job had never been.
    """

    def __init__(
        self,
        session_id: str,
        turn_id: str,
        started_s: float,
        wake: Callable[[], object],
        in_band: bool = False,
        lane_done: Callable[[Lane], None] | None = None,
        forgive: Callable[[Lane], bool] | None = None,
    ) -> None:
        self.session_id = session_id
        self.turn_id = turn_id
        self.outcome = Outcome(started_s)
        self.ended = False
        self.done: TurnDone | None = None
        self._wake = wake
        self._in_band = in_band
        self._lane_done = lane_done
        self._forgive = forgive
        self._lanes: list[Lane] = []
        self._sealed = False
        self._sequence = 0
        self._reason: FinishReason | None = None
        self._error: UpbeatError | None = None
        self._fatal: UpbeatError | None = None

    @property
    def sequence(self) -> int:
        """Number of the last event."""
        return self._sequence

    @property
    def stopped(self) -> bool:
        """Whether only TurnDone is to come, or not even that."""
        return self._reason is not None

    @property
    def fatal(self) -> UpbeatError | None:
        """What `next` raises, where the turn cannot even end with TurnDone."""
        return self._fatal

    def add(self, lane: Lane) -> None:
        """One more job answers this turn."""
        self._lanes.append(lane)
        self._lanes.sort(key=lambda each: ORDER[each.modality])
        lane.work.on_arrival(self._wake)
        self._wake()

    def changed(self) -> None:
        """A lane may have something without anything having arrived."""
        self._wake()

    def drop(self, lane: Lane) -> None:
        """The turn goes on without this job."""
        lane.work.cancel()
        if lane in self._lanes:
            self.outcome.waste(lane.wasted)
            self._lanes.remove(lane)

    def release(self, lane: Lane) -> None:
        """The job goes on, but not for this turn."""
        if lane in self._lanes:
            self._lanes.remove(lane)
        self._wake()

    def seal(self) -> None:
        """All lanes are there, but for those that running ones add."""
        self._sealed = True
        self._wake()

    def stop(self, reason: FinishReason, error: UpbeatError | None = None) -> None:
        """Nothing but TurnDone leaves from now on; all jobs are cancelled."""
        if self._reason is None:
            self._reason = reason
            self._error = error or self._error
        for lane in self._lanes:
            self.outcome.waste(lane.wasted)
            lane.work.cancel()
        self._lanes.clear()
        self._wake()

    def abandon(self, now_s: float) -> TurnDone:
        """Nobody listens any more: all jobs are cancelled. Returns how the turn ended."""
        if self.done is None:
            self.stop(FinishReason.CANCELLED)
            return self._conclude(self._reason or FinishReason.CANCELLED, now_s)
        return self.done

    def fail(self, error: UpbeatError) -> None:
        """The turn cannot go on: in band it ends with FAILED, otherwise `next` raises the error."""
        self.stop(FinishReason.FAILED, error)
        if isinstance(error, DeviceLost) or not self._in_band:
            self._fatal = error

    def fail_later(self, error: UpbeatError) -> None:
        """A part of the turn failed; the rest goes on, and the turn ends with this error."""
        self._error = self._error or error

    def next(self, now_s: float) -> Event | None:
        """The next event, to be written at once; None if there is none now.

        Raises: UpbeatError, when a job failed and the failure is not reported in band.
        """
        if self.ended:
            return None
        self._raise_fatal(now_s)
        for lane in tuple(self._lanes):
            if lane not in self._lanes:
                continue
            body = self._ask(lane, now_s)
            if body is not None and self._reason is None:
                self.outcome.note(body, now_s)
                return self._event(body)
        self._raise_fatal(now_s)
        if self._reason is None and self._sealed and not self._lanes:
            self._reason = self.outcome.reason() if self._error is None else FinishReason.FAILED
        return None if self._reason is None else self._event(self._conclude(self._reason, now_s))

    def wait_s(self, now_s: float) -> float:
        """Seconds until `next` may have something without anything arriving; inf if never."""
        return min((lane.wait_s(now_s) for lane in self._lanes), default=math.inf)

    def _ask(self, lane: Lane, now_s: float) -> Body | None:
        try:
            body = lane.next(now_s)
        except UpbeatError as error:
            self._lane_failed(lane, error)
            return None
        if lane.done is not None:
            self._lane_ended(lane, lane.done)
        return body

    def _lane_ended(self, lane: Lane, done: Done) -> None:
        if lane in self._lanes:
            self._lanes.remove(lane)
        self.outcome.job_done(lane.modality, done)
        if self._lane_done is not None:
            self._lane_done(lane)

    def _lane_failed(self, lane: Lane, error: UpbeatError) -> None:
        self.drop(lane)
        lost = isinstance(error, DeviceLost)
        if not lost and self._forgive is not None and self._forgive(lane):
            return
        if lost or not self._in_band or lane.modality in ("text", "transcription"):
            self.fail(error)
        else:
            self.fail_later(error)

    def _raise_fatal(self, now_s: float) -> None:
        if self._fatal is not None:
            self._conclude(FinishReason.FAILED, now_s)
            raise self._fatal

    def _conclude(self, reason: FinishReason, now_s: float) -> TurnDone:
        self.ended = True
        self.done = TurnDone(reason, self.outcome.usage(), self.outcome.timings(now_s), self._error)
        return self.done

    def _event(self, body: Body) -> Event:
        self._sequence += 1
        return Event(self.session_id, self.turn_id, self._sequence, body)
