"""The jobs that answer one turn: text, the speech that it feeds, an image; and the notes on the prompt.

Rules:
  1. The speech job is submitted before the text job that feeds it.
  2. A lost device, and whatever fails once the prompt is committed, fails the turn. Work ahead of the commit
     that fails is dropped, not reported: the prompt may still change, and is answered afresh at the commit.
     News of such a failure may come behind the commit: a job that ran ahead is replaced once, as long as
     nothing of the committed answer has left.
  3. Nothing made ahead of the commit leaves before it, but tokens and thoughts that the client asked for.
Owner: the turn. No waiting; the clock is injected.
"""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec

from pipelines.errors import DeviceLost, UpbeatError
from pipelines.messages import Message, PromptRevision, TextRequest, TokenChunk
from pipelines.simultaneous import layout
from pipelines.simultaneous.layout import Note
from pipelines.simultaneous.policies import Advice, Partial, policy, thinking
from server.desk import Desk
from server.dispatch import Work
from server.early import Early, Expected
from server.events import Discarded
from server.foresight import Foresight
from server.history import heard
from server.lanes import Lane, TextLane
from server.picture import Picture
from server.plan import Mode
from server.prompt import Prompt
from server.thinking import Thinking
from server.turn import Turn
from server.voice import Voice

PICTURE_POLICY = policy("completeness", "")


class Answer:
    """One turn's answer. `ahead`: whether work before the commit is wanted and possible."""

    def __init__(self, desk: Desk, turn: Turn, prompt: Prompt) -> None:
        plan = desk.plan
        self.ahead = plan.ahead.mode > Mode.OFF
        self.sent_chars = 0
        thinks = plan.ahead.mode >= Mode.THINK_AHEAD
        advises = self._think_policy if thinks else plan.ahead.policy
        self.foresight = Foresight(prompt, advises, self._grant, desk.allowance)
        self._desk = desk
        self._turn = turn
        self._prompt = prompt
        self._text: TextLane | None = None
        self._expected = Expected()
        self._voice: Voice | None = None
        self._picture = Picture(turn, self._submit_image)
        self._thinking: Thinking | None = None
        self._retry: PromptRevision | None = None
        self._owed: list[Discarded] = []

    @property
    def text(self) -> str:
        """What was shown so far."""
        return self._text.text if self._text else ""

    @property
    def complete(self) -> bool:
        """Whether the text has ended."""
        return self._text is not None and self._text.done is not None

    def heard(self, played_ms: float) -> str:
        """What the listener heard; all that was shown, where it is not spoken."""
        if self._voice is None:
            return self.text
        speech = self._voice.lane
        return heard(self.text, played_ms, speech.pacer.written_ms, complete=speech.done is not None)

    @property
    def played_ms(self) -> float:
        """Where the listener is by now, as far as was told."""
        return self._voice.lane.pacer.played_ms(self._desk.clock.now()) if self._voice is not None else 0.0

    def playback(self, played_ms: int) -> None:
        """The client has told what was heard."""
        if self._voice is not None:
            now_s = self._desk.clock.now()
            self._voice.lane.pacer.reported(played_ms, now_s)
            self._voice.lane.tell(now_s)

    # --- ahead of the commit --------------------------------------------------------------------------

    def work_ahead(self) -> float:
        """The prompt has changed, or time has passed. Returns in how many seconds to ask again."""
        plan, now_s = self._desk.plan, self._desk.clock.now()
        again_s = self._imagine(now_s)
        if plan.text is None:
            return again_s
        try:
            self._think()
            revision = self.foresight.revision(self._notes, now_s)
            if revision is not None:
                self._send(revision)
        except DeviceLost as error:
            self._turn.fail(error)
        except UpbeatError:
            self._stay_behind()
        return min(again_s, self.foresight.again_s)

    def forgive(self, lane: Lane) -> bool:
        """Whether the turn goes on without the job that failed (rule 2)."""
        if self._picture.failed(lane) or (self._thinking is not None and self._thinking.failed(lane)):
            return True
        if lane not in (self._text, self._voice and self._voice.lane):
            return False
        if self._prompt.committed:
            return self._tried_again(lane)
        self._stay_behind()
        return True

    def _tried_again(self, lane: Lane) -> bool:
        """Whether another job answers the committed prompt in place of the one that ran ahead of it."""
        final, self._retry = self._retry, None
        if final is None or lane is not self._text or self.text:
            return False
        self._stay_behind()
        try:
            self._answer(final)
        except UpbeatError as error:
            self._turn.fail(error)
        return True

    def _think(self) -> None:
        plan = self._desk.plan
        if plan.ahead.mode < Mode.THINK_AHEAD or plan.text is None:
            return
        if self._thinking is None:
            model, history = plan.ahead.thinker or plan.text, self._history()
            self._thinking = Thinking(self._desk, self._turn, model, history, self._noted)
        self._thinking.revise(self._prompt.text, self.foresight.number)

    def _noted(self) -> None:
        if self.ahead and not self._prompt.committed and not self._turn.stopped:
            self.work_ahead()

    def _think_policy(self, partial: Partial) -> Advice:
        return thinking(self._thinking is not None and self._thinking.could_answer)(partial)

    def _imagine(self, now_s: float) -> float:
        """Begins the image of the user's own words, or the one that was ordered, where the prompt seems to be
        complete. Returns in how many seconds to ask again."""
        plan = self._desk.plan
        if plan.image is None or plan.draw_on_request or plan.ahead.mode < Mode.ANSWER_AHEAD:
            return math.inf
        partial = self.foresight.partial(now_s)
        advice = PICTURE_POLICY(partial)
        if advice.answer and self._desk.grant(plan.image, 1):
            self._picture.expect(plan.drawing.prompt or partial.text)
        return advice.again_ms / 1000.0

    @property
    def _notes(self) -> tuple[Note, ...]:
        return self._thinking.notes if self._thinking is not None else ()

    def _grant(self) -> int:
        """How many tokens of an answer may be generated ahead now."""
        plan = self._desk.plan
        if plan.ahead.mode < Mode.ANSWER_AHEAD or plan.text is None:
            return 0
        return self._desk.grant(plan.text, plan.sampling.max_tokens)

    def _arrived_early(self, chunk: TokenChunk) -> None:
        """A token of the answer ahead that holds now: its first clause is spoken, its picture begun."""
        self._expected.add(chunk.text)
        if self._expected.caption and self._draws_on_request:
            self._picture.expect(self._expected.caption)
        if self._voice is not None:
            try:
                self._voice.expect(self._expected.text)
            except UpbeatError:
                self._stay_behind()

    def _charge(self, tokens: int) -> None:
        self._desk.allowance.charge(tokens, self._desk.clock.now())

    def _stay_behind(self) -> None:
        self.ahead = False
        if self._text is not None:
            self._turn.drop(self._text)
            self._owed = self._text.give_up()
        if self._voice is not None:
            self._turn.drop(self._voice.lane)
        if self._thinking is not None:
            self._thinking.stop()
        self._picture.settle()
        self.foresight.forget()
        self._text, self._voice = None, None

    # --- from the commit on ---------------------------------------------------------------------------

    def begin(self) -> None:
        """The prompt is committed."""
        plan = self._desk.plan
        if plan.text is not None:
            try:
                self._commit()
            except UpbeatError as error:
                self._turn.fail(error)
                return
        if plan.image is not None and not plan.draw_on_request:
            self._picture.draw(plan.drawing.prompt or self._prompt.text)

    def ended(self, lane: Lane) -> None:
        """A job has ended well."""
        if lane is self._text:
            self._picture.settle()

    def _commit(self) -> None:
        if self._thinking is not None:
            self._thinking.stop()
            self._thinking.hold(self._prompt.text)
        ran_ahead = self._text is not None
        final = self.foresight.final(self._notes)
        self._answer(final)
        self._retry = final if ran_ahead else None

    def _answer(self, final: PromptRevision) -> None:
        """The committed prompt to the device; what comes of it may leave."""
        self._send(final)
        text, voice = self._text, self._voice
        assert text is not None, "sent"
        if voice is not None:
            voice.commit()
            if voice.moved:
                text.work.promote(voice.lane.work)
        text.commit()
        self.sent_chars += len(self._prompt.text)

    def _send(self, revision: PromptRevision) -> None:
        """A revision to the running job or to a new one."""
        lane = self._text
        if lane is None:
            self._text = self._open(revision)
            return
        if revision.number > lane.revision:
            lane.supersede(revision.number)
            self._expected = Expected()
        if revision.final:
            lane.work.commit(revision)
        else:
            lane.work.update(revision)

    def _open(self, first: PromptRevision) -> TextLane:
        desk, plan, turn_id = self._desk, self._desk.plan, self._turn.turn_id
        assert plan.text is not None, "asked for only where the plan has text"
        if plan.speech is not None:
            early = not first.final and plan.ahead.mode >= Mode.ANSWER_AHEAD
            self._voice = Voice(self._turn, self._submit_speech, self._moved, committed=not early)
        history = self._history()
        self.sent_chars = sum(len(message.content) for message in history)
        self.foresight.history_chars = self.sent_chars
        request = TextRequest(history, plan.sampling, plan.cache_scope)
        order = replace(
            desk.order(turn_id, plan.text, plan.job_class, request),
            first=first,
            committed=first.final,
            consumer=self._voice.lane.work.handle if self._voice else None,
        )
        draw = self._picture.draw if self._draws_on_request else None
        kept = Early(self._arrived_early, self._charge, plan.ahead.emit_before_commit)
        kept.stale.extend(self._owed)
        lane = TextLane(desk.dispatcher.submit(order), self._speak, draw, early=kept)
        lane.revision = first.number
        self._turn.add(lane)
        return lane

    def _history(self) -> tuple[Message, ...]:
        history = self._desk.history.messages(len(self._prompt.text))
        return layout.opening(history) if self._desk.plan.ahead.mode >= Mode.THINK_AHEAD else history

    def _speak(self, text: str, final: bool) -> None:
        if self._voice is not None:
            self._voice.say(text, final)

    def _moved(self, work: Work) -> None:
        if self._text is not None and self._prompt.committed:
            self._text.work.promote(work)

    @property
    def _draws_on_request(self) -> bool:
        return self._desk.plan.image is not None and self._desk.plan.draw_on_request

    def _submit_speech(self, committed: bool) -> Work:
        desk, plan = self._desk, self._desk.plan
        assert plan.speech is not None, "asked for only where the plan has speech"
        order = desk.order(self._turn.turn_id, plan.speech, plan.job_class, plan.voice)
        return desk.dispatcher.submit(replace(order, committed=committed))

    def _submit_image(self, prompt: str, committed: bool) -> Work:
        desk, plan = self._desk, self._desk.plan
        assert plan.image is not None, "asked for only where the plan has images"
        request = msgspec.structs.replace(plan.drawing, prompt=prompt)
        order = desk.order(self._turn.turn_id, plan.image, plan.image_class, request)
        return desk.dispatcher.submit(replace(order, committed=committed, credits=0 if committed else 1))
