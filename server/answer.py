"""The jobs that answer one turn: text, the speech that it feeds, an image.

Rules:
  1. The speech job is submitted before the text job that feeds it.
  2. A lost device, and whatever fails once the prompt is committed, fails the turn. Work ahead of the commit
     that fails is dropped, not reported: the prompt may still change, and is answered afresh at the commit.
  3. One image a turn; what the model asks for beyond it is not drawn.
Owner: the turn. No waiting; the clock is injected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from pipelines.errors import DeviceLost, UpbeatError
from pipelines.messages import JobClass, ModelInfo, Request, SpeechText, TextRequest
from server.clock import Clock
from server.dispatch import Dispatcher, Work
from server.executor.link import JobOrder
from server.history import History, heard
from server.lanes import AudioLane, ImageLane, Lane, TextLane
from server.pacing import Pacer
from server.plan import Plan
from server.prompt import Prompt
from server.turn import Turn


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

    def submit(self, turn_id: str, model: ModelInfo, job_class: JobClass, request: Request) -> Work:
        """A job without further ado. Raises: Draining, Exhausted, DeviceLost."""
        return self.dispatcher.submit(self.order(turn_id, model, job_class, request))

    def order(self, turn_id: str, model: ModelInfo, job_class: JobClass, request: Request) -> JobOrder:
        """A job of this session's, with the stream's deadline."""
        deadline_s = self.deadline_s()
        return JobOrder(
            model.name,
            self.session_id,
            turn_id,
            self.plan.tenant,
            job_class,
            request,
            deadline_in_s=0.0 if math.isinf(deadline_s) else max(0.001, deadline_s - self.clock.now()),
        )


class Answer:
    """One turn's answer. `ahead`: whether work before the commit is wanted and possible."""

    def __init__(self, desk: Desk, turn: Turn, prompt: Prompt) -> None:
        self.ahead = desk.plan.prefill and desk.plan.text is not None
        self.sent_chars = 0
        self._desk = desk
        self._turn = turn
        self._prompt = prompt
        self._text: TextLane | None = None
        self._speech: AudioLane | None = None
        self._drawn = False

    @property
    def text(self) -> str:
        """What was shown so far."""
        return self._text.text if self._text else ""

    @property
    def complete(self) -> bool:
        """Whether the text has ended."""
        return self._text is not None and self._text.done is not None

    def heard(self, played_ms: int) -> str:
        """What the listener heard; all that was shown, where it is not spoken."""
        speech = self._speech
        if speech is None:
            return self.text
        return heard(self.text, played_ms, speech.pacer.written_ms, complete=speech.done is not None)

    def playback(self, played_ms: int) -> None:
        """The client has told what was heard."""
        if self._speech is not None:
            now_s = self._desk.clock.now()
            self._speech.pacer.reported(played_ms, now_s)
            self._speech.tell(now_s)

    def work_ahead(self) -> None:
        """The prompt has changed and is not committed."""
        try:
            self._send()
        except DeviceLost as error:
            self._turn.fail(error)
        except UpbeatError:
            self._stay_behind()

    def forgive(self, lane: Lane) -> bool:
        """Whether the job that failed was work ahead of the commit, which is then given up."""
        if self._prompt.committed or lane not in (self._text, self._speech):
            return False
        self._stay_behind()
        return True

    def begin(self) -> None:
        """The prompt is committed."""
        plan = self._desk.plan
        if plan.text is not None:
            try:
                self._send()
            except UpbeatError as error:
                self._turn.fail(error)
                return
        if plan.image is not None and not plan.draw_on_request:
            self._draw(plan.drawing.prompt or self._prompt.text)

    def _stay_behind(self) -> None:
        self.ahead = False
        for lane in (self._text, self._speech):
            if lane is not None:
                self._turn.drop(lane)
        self._text, self._speech = None, None

    def _send(self) -> None:
        """The prompt as it stands, to the running job or to a new one."""
        if self._text is None:
            text = self._text = self._open()
        else:
            text = self._text
            text.work.update(self._prompt.snapshot())
        if self._prompt.committed:
            text.revision = self._prompt.number
            self.sent_chars += len(self._prompt.text)

    def _open(self) -> TextLane:
        desk, plan, turn_id = self._desk, self._desk.plan, self._turn.turn_id
        assert plan.text is not None, "asked for only where the plan has text"
        if plan.speech is not None:
            self._speech = AudioLane(desk.submit(turn_id, plan.speech, plan.job_class, plan.voice), Pacer())
            self._turn.add(self._speech)
        history = desk.history.messages(len(self._prompt.text))
        self.sent_chars = sum(len(message.content) for message in history)
        request = TextRequest(history, plan.sampling, plan.cache_scope)
        order = replace(
            desk.order(turn_id, plan.text, plan.job_class, request),
            first=self._prompt.snapshot(),
            committed=self._prompt.committed,
            consumer=self._speech.work.handle if self._speech else None,
        )
        draw = self._draw if plan.image is not None and plan.draw_on_request else None
        lane = TextLane(desk.dispatcher.submit(order), self._speak, draw)
        self._turn.add(lane)
        return lane

    def _speak(self, text: str, final: bool) -> None:
        if self._speech is not None:
            self._speech.work.update(SpeechText(text, final))

    def _draw(self, caption: str) -> None:
        desk, model = self._desk, self._desk.plan.image
        if model is None or self._drawn:
            return
        self._drawn = True
        request = msgspec.structs.replace(desk.plan.drawing, prompt=caption)
        try:
            work = desk.submit(self._turn.turn_id, model, desk.plan.image_class, request)
        except UpbeatError as error:
            self._turn.fail_later(error)
        else:
            self._turn.add(ImageLane(work))
