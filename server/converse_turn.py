"""One turn of a conversation: turns the prompt's edits into revisions and the commit into jobs.

Rules:
  1. Edits inside one tick make one revision; a commit does not wait for the tick.
  2. The speech job is submitted before the text job that feeds it.
  3. What fails in a turn ends the turn; only a lost device ends the stream. Work ahead of the commit that
     fails is dropped, not reported: the prompt may still change, and is answered from the start at commit.
Owner: the session. No waiting; the clock is injected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from pipelines.errors import DeviceLost, InvalidRequest, UpbeatError, WrongState
from pipelines.messages import (
    FinishReason,
    JobClass,
    ModelInfo,
    Request,
    SpeechAudio,
    SpeechText,
    TextRequest,
    TranscribeRequest,
    TranscriptChunk,
)
from server.clock import Clock, Timer
from server.dispatch import Dispatcher, Work
from server.executor.link import JobOrder
from server.history import History, heard
from server.lanes import AudioLane, ImageLane, Lane, TextLane, TranscriptLane
from server.listening import Listening
from server.pacing import Pacer
from server.plan import Plan
from server.prompt import Prompt
from server.turn import Turn

TICK_S = 0.005


@dataclass(frozen=True, slots=True)
class Desk:
    """What every turn of a session works with. deadline_s: on the clock, inf for none."""

    session_id: str
    plan: Plan
    dispatcher: Dispatcher
    clock: Clock
    history: History
    deadline_s: Callable[[], float]
    max_prompt_chars: int
    max_audio_s: float


class ConverseTurn:
    """`turn` holds the events; the methods are the client's actions."""

    def __init__(self, desk: Desk, turn_id: str, wake: Callable[[], object]) -> None:
        now_s = desk.clock.now()
        self.prompt = Prompt(desk.max_prompt_chars)
        self.turn = Turn(
            desk.session_id,
            turn_id,
            now_s,
            wake,
            in_band=True,
            lane_done=self._lane_done,
            forgive=self._dropped_ahead,
        )
        self.sent_chars = 0
        self._desk = desk
        self._text: TextLane | None = None
        self._speech: AudioLane | None = None
        self._listening: Listening | None = None
        self._ear: TranscriptLane | None = None
        self._drawn = False
        self._ahead = desk.plan.prefill and desk.plan.text is not None
        self._commit_at_s: float | None = None
        self._timer: Timer | None = None

    @property
    def answer(self) -> str:
        """The text shown so far."""
        return self._text.text if self._text else ""

    @property
    def committed(self) -> bool:
        """Whether the prompt is complete, or will be as soon as the rest of it is recognised."""
        return self.prompt.committed or self._commit_at_s is not None

    @property
    def answered(self) -> bool:
        """Whether the text is complete."""
        return self._text is not None and self._text.done is not None

    def append(self, text: str) -> None:
        self._check_typed("append")
        self.prompt.append(text)
        self._edited()

    def revise(self, from_char: int, text: str) -> None:
        self._check_typed("revise")
        self.prompt.revise(from_char, text)
        self._edited()

    def audio(self, pcm16: bytes, sample_rate: int) -> None:
        """A piece of the spoken prompt, mono PCM16; 0 Hz for the conversation's rate."""
        if self.committed:
            if self._desk.plan.commit_on_silence:
                return  # The microphone stays open while the answer comes.
            raise WrongState("the prompt is committed; audio may come after turn_done", field="audio")
        if self._listening is None:
            self._listen(sample_rate)
        listening, ear = self._listening, self._ear
        if listening is None or ear is None:
            return
        if sample_rate not in (0, listening.sample_rate):
            raise InvalidRequest("audio.sample_rate", f"must stay {listening.sample_rate}, not {sample_rate}")
        listening.arrived(len(pcm16), self._desk.clock.now())
        ear.work.update(SpeechAudio(pcm16, final=False))

    def commit(self, text: str | None) -> None:
        """The prompt is complete; a spoken one, as soon as it is recognised."""
        now_s = self._desk.clock.now()
        if self._commit_at_s is not None:
            raise WrongState("the prompt is already committed", field="commit")
        if text is not None:
            self.prompt.replace("commit.text", text)
        elif self._ear is not None:
            self._commit_at_s = now_s
            self._ear.work.update(SpeechAudio(b"", final=True))
            return
        self.prompt.commit()
        self._begin(now_s)

    def end_input(self) -> None:
        """The client will say no more: what is committed is answered, anything else dropped."""
        if self.committed:
            return
        if self._ear is not None and self._desk.plan.commit_on_silence:
            self.commit(None)
        else:
            self.stop(FinishReason.CANCELLED)

    def playback(self, played_ms: int) -> None:
        if self._speech is not None:
            now_s = self._desk.clock.now()
            self._speech.pacer.reported(played_ms, now_s)
            self._speech.tell(now_s)

    def stop(self, reason: FinishReason) -> None:
        """Nothing but turn_done leaves from now on."""
        self._cancel_timer()
        self.turn.stop(reason)

    def heard(self, played_ms: int) -> str:
        """Of the answer what the listener heard; all that was shown, where it was not spoken."""
        if self._speech is None:
            return self.answer
        return heard(
            self.answer, played_ms, self._speech.pacer.written_ms, complete=self._speech.done is not None
        )

    # --- the prompt ---------------------------------------------------------------------------------

    def _check_typed(self, field: str) -> None:
        if self._listening is not None:
            raise WrongState("the prompt of this turn is spoken; commit.text may replace it", field=field)

    def _edited(self) -> None:
        if self._ahead and self._timer is None:
            self._timer = self._desk.clock.call_later(TICK_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if not self._ahead or not self.prompt.changed or self.prompt.committed or self.turn.stopped:
            return
        try:
            self._send_text()
        except DeviceLost as error:
            self.turn.fail(error)
        except UpbeatError:
            self._stay_behind()

    def _dropped_ahead(self, lane: Lane) -> bool:
        """Whether the failed job was work ahead of the commit."""
        if self.prompt.committed or lane not in (self._text, self._speech):
            return False
        self._stay_behind()
        return True

    def _stay_behind(self) -> None:
        """No more work ahead of the commit in this turn."""
        self._ahead = False
        for lane in (self._text, self._speech):
            if lane is not None:
                self.turn.drop(lane)
        self._text, self._speech = None, None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _listen(self, sample_rate: int) -> None:
        plan = self._desk.plan
        if plan.transcription is None:
            raise InvalidRequest("audio", "start.audio_sample_rate was 0: no audio was announced")
        self._listening = Listening(
            self.prompt.text, sample_rate or plan.audio_sample_rate, self._desk.max_audio_s
        )
        request = TranscribeRequest(self._listening.sample_rate)
        model = plan.transcription
        self._guard(lambda: self._open_ear(model, request))

    def _open_ear(self, model: ModelInfo, request: TranscribeRequest) -> None:
        self._ear = TranscriptLane(self._submit(model, JobClass.REALTIME, request), self._transcribed)
        self.turn.add(self._ear)

    def _transcribed(self, chunk: TranscriptChunk) -> None:
        """Called while the transcript is on its way out."""
        listening = self._listening
        if listening is None or self.prompt.committed:
            return
        listening.hear(chunk)
        self.prompt.replace("audio", listening.text)
        self._edited()
        if chunk.is_final and self._desk.plan.commit_on_silence and self._commit_at_s is None:
            now_s = self._desk.clock.now()
            if self.prompt.text.strip():
                self.prompt.commit()
                self._begin(listening.arrival_s(chunk.end_ms, now_s))

    def _lane_done(self, lane: Lane) -> None:
        if lane is not self._ear or self._commit_at_s is None or self.prompt.committed:
            return
        if self.prompt.text.strip():
            self.prompt.commit()
            self._begin(self._commit_at_s)
        else:
            self.turn.fail(InvalidRequest("audio", "no speech was recognised"))

    # --- the jobs -----------------------------------------------------------------------------------

    def _begin(self, committed_s: float) -> None:
        """The prompt is committed: answer it."""
        self._cancel_timer()
        if self._ear is not None and self._ear.done is None:
            self.turn.drop(self._ear)
        self.turn.outcome.committed_s = committed_s
        plan = self._desk.plan
        if plan.text is not None:
            self._guard(self._send_text)
        if plan.image is not None and not plan.draw_on_request and not self.turn.stopped:
            self._draw(plan.drawing.prompt or self.prompt.text)
        self.turn.seal()

    def _send_text(self) -> None:
        """The prompt as it stands, to a running job or to a new one."""
        if self._text is None:
            self._open_text()
        else:
            self._text.work.update(self.prompt.snapshot())
        if self.prompt.committed and self._text is not None:
            self._text.revision = self.prompt.number
            self.sent_chars += len(self.prompt.text)

    def _open_text(self) -> None:
        plan = self._desk.plan
        assert plan.text is not None, "the plan has text"
        if plan.speech is not None:
            speech = self._submit(plan.speech, plan.job_class, plan.voice)
            self._speech = AudioLane(speech, Pacer())
            self.turn.add(self._speech)
        history = self._desk.history.messages(len(self.prompt.text))
        self.sent_chars = sum(len(message.content) for message in history)
        order = self._order(plan.text, plan.job_class, TextRequest(history, plan.sampling))
        order = replace(
            order,
            first=self.prompt.snapshot(),
            committed=self.prompt.committed,
            consumer=self._speech.work.handle if self._speech else None,
        )
        draw = self._draw if plan.image is not None and plan.draw_on_request else None
        self._text = TextLane(self._desk.dispatcher.submit(order), self._speak, draw)
        self.turn.add(self._text)

    def _speak(self, text: str, final: bool) -> None:
        if self._speech is not None:
            self._speech.work.update(SpeechText(text, final))

    def _draw(self, caption: str) -> None:
        """One image a turn; what the model asks for beyond it is not drawn."""
        model = self._desk.plan.image
        if model is None or self._drawn:
            return
        self._drawn = True
        request = msgspec.structs.replace(self._desk.plan.drawing, prompt=caption)
        try:
            self.turn.add(ImageLane(self._submit(model, self._desk.plan.image_class, request)))
        except UpbeatError as error:
            self.turn.fail_later(error)

    def _submit(self, model: ModelInfo, job_class: JobClass, request: Request) -> Work:
        return self._desk.dispatcher.submit(self._order(model, job_class, request))

    def _order(self, model: ModelInfo, job_class: JobClass, request: Request) -> JobOrder:
        desk = self._desk
        deadline_s = desk.deadline_s()
        return JobOrder(
            model.name,
            desk.session_id,
            self.turn.turn_id,
            desk.plan.tenant,
            job_class,
            request,
            deadline_in_s=0.0 if math.isinf(deadline_s) else max(0.001, deadline_s - desk.clock.now()),
        )

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except UpbeatError as error:
            self.turn.fail(error)
