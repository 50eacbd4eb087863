"""One client's conversation: a succession of turns, what was said, and what was sent.

A state machine without gRPC and without waiting: the client's actions are methods, `next` gives the events.
A stream holds the session through an Attachment, whose signal is the session's `listener`; when the stream
is lost, another may take its place.
Where the microphone stays open (`interrupt_on_speech`), audio is no turn's before speech has begun in it:
that ends the answer as `interrupt` does, and begins the next turn, or goes on with one that is being written.
Owner: the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import Draining, InvalidRequest, NotFound, UpbeatError, WrongState
from pipelines.messages import Done, FinishReason, TranscriptChunk
from server.allowance import Allowance, Allowances
from server.clock import Clock
from server.converse_turn import ConverseTurn
from server.desk import Desk
from server.dispatch import Dispatcher
from server.events import Event, Ready, TurnDone
from server.history import History
from server.microphone import Microphone
from server.plan import Plan
from server.replay import ReplayBudget, ReplayLog

RETENTION_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Bounds of one session."""

    prompt_chars: int = 200_000
    audio_s: float = 600.0
    replay_bytes: int = 8 << 20


class Session:
    """`finished(done)` is told of each turn's end."""

    def __init__(
        self,
        session_id: str,
        plan: Plan,
        dispatcher: Dispatcher,
        clock: Clock,
        limits: SessionLimits,
        budget: ReplayBudget,
        finished: Callable[[TurnDone], None],
        allowance: Allowance | None = None,
    ) -> None:
        self.session_id = session_id
        self.plan = plan
        self.deadline_s = math.inf
        self.listener: asyncio.Event | None = None
        self.active: ConverseTurn | None = None
        self.log = ReplayLog(budget, limits.replay_bytes)
        self._dispatcher = dispatcher
        self._clock = clock
        self._finished = finished
        self._history = History(plan.history, plan.budget_tokens)
        self._desk = Desk(
            session_id,
            plan,
            dispatcher,
            clock,
            self._history,
            allowance or Allowances().session(plan.tenant),
            lambda: self.deadline_s,
            limits.prompt_chars,
            limits.audio_s,
        )
        self._last: ConverseTurn | None = None
        self._microphone: Microphone | None = None
        self._pending: deque[Event] = deque()
        self._turns = 0
        self._input_ended = False

    # --- the client's actions -------------------------------------------------------------------------

    def start(self) -> None:
        """Says `ready`."""
        rate = (self.plan.voice.sample_rate or self.plan.speech.sample_rate) if self.plan.speech else 0
        self._pending.append(Event(self.session_id, "", 0, Ready(self.plan.models, rate)))
        self.wake()

    def append(self, text: str) -> None:
        if text:
            self._writing("append").append(text)

    def revise(self, from_char: int, text: str) -> None:
        if self.active is None and from_char:
            raise InvalidRequest("revise.from_char", f"must be 0: no prompt has begun, not {from_char}")
        self._writing("revise").revise(from_char, text)

    def audio(self, pcm16: bytes, sample_rate: int) -> None:
        if len(pcm16) % 2:
            raise InvalidRequest(
                "audio.pcm16", f"16-bit samples need an even number of bytes, not {len(pcm16)}"
            )
        if self.plan.transcription is None:
            raise WrongState("start.audio_sample_rate was 0: no audio was announced", field="audio")
        if pcm16 and self.plan.interrupt_on_speech:
            self._listening(sample_rate).hear(pcm16, sample_rate, self._clock.now())
        elif pcm16:
            turn = self.active or self._begin()
            turn.audio(pcm16, sample_rate)

    def commit(self, text: str | None) -> None:
        if self.active is None and not text:
            if self._microphone is not None:
                return  # Nothing was said so far, which the client could not know.
            raise InvalidRequest("commit.text", "the prompt must not be empty")
        self._writing("commit").commit(text)

    def interrupt(self, played_ms: float) -> None:
        """The listener speaks. Behind turn_done it still tells how much of the answer was heard; a turn whose
        prompt is not committed says nothing yet and goes on."""
        turn = self.active
        if turn is not None and turn.committed:
            if turn.prompt.committed and not turn.turn.stopped:
                self._history.add(turn.prompt.text, turn.answer.heard(played_ms))
            turn.stop(FinishReason.INTERRUPTED)
            self._retire()
        elif self._last is not None:
            self._history.trim_last(self._last.answer.heard(played_ms))
            self._last = None

    def cancel(self, turn_id: str) -> None:
        """Drop the turn; nothing of it stays in the history."""
        active = self.active
        if active is not None and turn_id in ("", active.turn.turn_id):
            active.stop(FinishReason.CANCELLED)
            self._retire()
        elif turn_id and not self.log.knows(turn_id):
            raise NotFound(f"this conversation has no turn {turn_id!r}", field="cancel.turn_id")

    def playback(self, played_ms: int) -> None:
        if self.active is not None:
            self.active.answer.playback(played_ms)
            self.wake()

    def end_input(self) -> None:
        """The client will say no more."""
        self._input_ended = True
        if self._microphone is not None:
            self._microphone.finish()
        if self.active is not None and self.active.microphone is None:
            self.active.end_input()
        self.wake()

    # --- the events -----------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said."""
        silent = self._microphone is None
        return self._input_ended and self.active is None and silent and not self._pending

    def next(self, now_s: float) -> Event | None:
        """The next event, to be written at once.

        Raises: DeviceLost, when it took the turn with it; Draining, between turns of a server that goes; what
        ended the job of the open microphone.
        """
        if self._dispatcher.draining and self.active is not None and not self.active.committed:
            self.cancel("")
        if not self._pending:
            self._hear()
        if self._pending:
            return self._pending.popleft()
        if self.active is None:
            if self._dispatcher.draining:
                raise Draining("the server is shutting down", retry_after_s=1.0)
            return None
        try:
            event = self.active.turn.next(now_s)
        except UpbeatError:
            self._close(self.active)
            raise
        if event is not None:
            self.log.add(event)
        if self.active.turn.ended:
            self._close(self.active)
        return self.next(now_s) if event is None and self._hear() else event

    def wait_s(self, now_s: float) -> float:
        return self.active.turn.wait_s(now_s) if self.active is not None else math.inf

    def replay(self, turn_id: str, last_sequence: int) -> None:
        """Everything behind that event is sent again. An empty turn_id is the latest turn, of which the
        client may not have seen anything yet. Raises: NotFound, InvalidRequest."""
        running = self.active.turn.turn_id if self.active is not None else ""
        turn_id = turn_id or running or self.log.latest
        if turn_id and turn_id == running and not self.log.knows(turn_id) and not last_sequence:
            self._pending.clear()
        else:
            self._pending = deque(self.log.after(turn_id, last_sequence))
        self._input_ended = False

    def wake(self) -> None:
        """Something may have to be sent."""
        if self.listener is not None:
            self.listener.set()

    def drop(self) -> None:
        """The client is gone for good."""
        self.deafen()
        if self.active is not None:
            self._finished(self.active.turn.abandon(self._clock.now()))
            self.active = None
        self.log.clear()

    # --- the open microphone --------------------------------------------------------------------------

    def _listening(self, sample_rate: int) -> Microphone:
        """The one that listens on. Raises: Draining, Exhausted, DeviceLost."""
        microphone = self._microphone
        if microphone is None or microphone.finished:
            if microphone is not None and not microphone.spoken:
                microphone.close()
            microphone = self._microphone = Microphone(self._desk, sample_rate)
            microphone.work.on_arrival(self.wake)
        return microphone

    def _hear(self) -> bool:
        """Whether somebody has begun to speak, or will no more. Raises: UpbeatError, when that cannot be
        known any longer."""
        microphone, turn = self._microphone, self.active
        if microphone is None or microphone.spoken or (turn is not None and turn.turn.stopped):
            return False
        try:
            chunk = microphone.take()
        except UpbeatError:
            self._microphone = None
            raise
        if isinstance(chunk, TranscriptChunk):
            self._spoken_to(microphone, chunk)
        elif isinstance(chunk, Done):
            self._microphone = None
            if self.active is not None:
                self.active.end_input()
        return chunk is not None

    def _spoken_to(self, microphone: Microphone, begun: TranscriptChunk) -> None:
        """Speech ends the answer, at what was heard of it as far as is known; the client may correct that."""
        turn = self.active
        if turn is not None and turn.committed:
            self.interrupt(turn.answer.played_ms)
            self._last = turn if turn.prompt.committed else None
        elif turn is None and self._last is not None:
            self._history.trim_last(self._last.answer.heard(self._last.answer.played_ms))
        (self.active or self._begin()).speech(microphone, begun)

    def deafen(self) -> None:
        """Nobody will speak any more."""
        if self._microphone is not None:
            self._microphone.close()
            self._microphone = None

    # --- turns ----------------------------------------------------------------------------------------

    def _writing(self, field: str) -> ConverseTurn:
        if self.active is not None and self.active.turn.stopped:
            if self.active.turn.fatal is not None:  # the client could not know; it may come again
                raise self.active.turn.fatal
            raise WrongState("the turn is ending; the next one may begin after turn_done", field=field)
        return self.active or self._begin()

    def _begin(self) -> ConverseTurn:
        self._dispatcher.check_open()
        self._turns += 1
        self.active = ConverseTurn(self._desk, f"{self.session_id}.{self._turns}", self.wake)
        return self.active

    def _retire(self) -> None:
        """The stopped turn's turn_done goes out first; the next turn may begin at once."""
        turn = self.active
        if turn is None:
            return
        event = turn.turn.next(self._clock.now())
        if event is not None:
            self.log.add(event)
            self._pending.append(event)
        self._close(turn, keep=False)

    def _close(self, turn: ConverseTurn, keep: bool = True) -> None:
        self.active = None
        if turn.microphone is self._microphone:
            self._microphone = None  # It was spoken into to the end.
        done = turn.turn.done
        if done is None:
            return
        self._last = None
        if keep and turn.answer.complete and done.reason is not FinishReason.CANCELLED:
            self._history.add(turn.prompt.text, turn.answer.text)
            self._history.observe(turn.answer.sent_chars, done.usage.prompt_tokens)
            self._last = turn
        turn_id = turn.turn.turn_id
        log = self.log  # The timer keeps the log alive, not the session.
        self._clock.call_later(RETENTION_S, lambda: log.forget(turn_id))
        self._finished(done)
