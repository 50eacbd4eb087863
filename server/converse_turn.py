"""One turn of a conversation: the prompt's edits become revisions, speech becomes a prompt, the commit jobs.

Edits inside one tick make at most one revision; a commit does not wait for the tick. Owner: the session. No
waiting; the clock is injected.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pipelines.errors import InvalidRequest, UpbeatError, WrongState
from pipelines.messages import FinishReason, JobClass, SpeechAudio, TranscribeRequest, TranscriptChunk
from server.answer import Answer
from server.clock import Timer
from server.desk import Desk
from server.foresight import TICK_S
from server.lanes import Lane, TranscriptLane
from server.listening import Arrivals, Listening
from server.microphone import Microphone
from server.prompt import Prompt
from server.turn import Turn


class ConverseTurn:
    """`turn` holds the events, `answer` the jobs; the methods are the client's actions. microphone: the open
    one, as long as this turn is being spoken into it."""

    def __init__(self, desk: Desk, turn_id: str, wake: Callable[[], object]) -> None:
        self.prompt = Prompt(desk.max_prompt_chars)
        self.turn = Turn(
            desk.session_id,
            turn_id,
            desk.clock.now(),
            wake,
            in_band=True,
            lane_done=self._lane_done,
            forgive=lambda lane: self.answer.forgive(lane),
        )
        self.answer = Answer(desk, self.turn, self.prompt)
        self._desk = desk
        self._listening: Listening | None = None
        self._ear: TranscriptLane | None = None
        self.microphone: Microphone | None = None
        self._commit_at_s: float | None = None
        self._timer: Timer | None = None
        self._gathering = False

    @property
    def committed(self) -> bool:
        """Whether the prompt is complete, or will be as soon as the rest of it is recognised."""
        return self.prompt.committed or self._commit_at_s is not None

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
        listening = self._listening or self._listen(sample_rate)
        rate = listening.arrivals.sample_rate
        if sample_rate not in (0, rate):
            raise InvalidRequest("audio.sample_rate", f"must stay {rate}, not {sample_rate}")
        listening.arrived(len(pcm16), self._desk.clock.now())
        if self._ear is not None:
            self._ear.work.update(SpeechAudio(pcm16, final=False))

    def commit(self, text: str | None) -> None:
        """The prompt is complete; a spoken one, as soon as it is recognised."""
        now_s = self._desk.clock.now()
        if self._commit_at_s is not None:
            raise WrongState("the prompt is already committed", field="commit")
        if text is not None:
            self.prompt.replace("commit.text", text)
        elif self._ear is not None and not self.prompt.committed:
            self._commit_at_s = now_s
            if self.microphone is not None:
                self.microphone.finish()
            else:
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

    def stop(self, reason: FinishReason) -> None:
        """Nothing but turn_done leaves from now on."""
        self._cancel_timer()
        self.turn.stop(reason)

    # --- typed --------------------------------------------------------------------------------------

    def _check_typed(self, field: str) -> None:
        if self._listening is not None:
            raise WrongState("the prompt of this turn is spoken; commit.text may replace it", field=field)

    def _edited(self, paused: bool = False) -> None:
        foresight = self.answer.foresight
        foresight.edited(self._desk.clock.now(), paused)
        if self.answer.ahead and not self._gathering:
            self._gathering = True
            self._later(foresight.tick_s)

    def _tick(self) -> None:
        self._timer, self._gathering = None, False
        if self.answer.ahead and not self.prompt.committed and not self.turn.stopped:
            again_s = self.answer.work_ahead()
            if not math.isinf(again_s) and not self.turn.stopped:
                self._later(max(TICK_S, again_s))

    def _later(self, delay_s: float) -> None:
        self._cancel_timer()
        self._timer = self._desk.clock.call_later(delay_s, self._tick)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- spoken -------------------------------------------------------------------------------------

    def _listen(self, sample_rate: int) -> Listening:
        """Raises: WrongState, if no audio was announced."""
        plan = self._desk.plan
        if plan.transcription is None:
            raise WrongState("start.audio_sample_rate was 0: no audio was announced", field="audio")
        rate = sample_rate or plan.audio_sample_rate
        self._listening = Listening(self.prompt.text, Arrivals(rate), self._desk.max_audio_s)
        request = TranscribeRequest(rate)
        try:
            work = self._desk.submit(self.turn.turn_id, plan.transcription, JobClass.REALTIME, request)
        except UpbeatError as error:
            self.turn.fail(error)
        else:
            self._ear = TranscriptLane(work, self._transcribed)
            self.turn.add(self._ear)
        return self._listening

    def speech(self, microphone: Microphone, begun: TranscriptChunk) -> None:
        """Somebody has begun to speak into the open microphone: to its silence this is the turn's prompt, or
        more of it."""
        self.microphone = microphone
        self._listening = Listening(self.prompt.text, microphone.arrivals, math.inf)
        self._ear = TranscriptLane(microphone.work, self._transcribed, None if self.turn.sequence else begun)
        self.turn.add(self._ear)
        try:
            microphone.begins(begun.start_ms)
        except UpbeatError as error:
            self.turn.fail(error)

    def _fell_silent(self) -> None:
        """What comes next is another turn's, unless nothing was understood."""
        ear, microphone = self._ear, self.microphone
        if ear is not None and microphone is not None:
            self._ear = self.microphone = self._listening = None
            ear.release()
            self.turn.release(ear)
            microphone.rests()

    def _transcribed(self, chunk: TranscriptChunk) -> None:
        """Called while the transcript is on its way out. Raises: InvalidRequest, if it becomes too long."""
        listening = self._listening
        if listening is None or self.prompt.committed:
            return
        listening.hear(chunk)
        self.prompt.replace("audio", listening.text)
        self._edited(chunk.paused or chunk.is_final)
        silent = chunk.is_final and not chunk.cut and self._desk.plan.commit_on_silence
        if silent and self._commit_at_s is None:
            self._fell_silent()
            if listening.understood:
                self._understood(listening.arrivals.arrival_s(chunk.end_ms, self._desk.clock.now()))

    def _lane_done(self, lane: Lane) -> None:
        self.answer.ended(lane)
        if lane is not self._ear or self._commit_at_s is None or self.prompt.committed:
            return
        self._understood(self._commit_at_s)
        if not self.prompt.committed:
            self.turn.fail(InvalidRequest("audio", "no speech was recognised"))

    def _understood(self, committed_s: float) -> None:
        """The utterance is over: it is the prompt, if anything was said."""
        if self.prompt.text.strip():
            self.prompt.commit()
            self._begin(committed_s)

    def _begin(self, committed_s: float) -> None:
        """The prompt is committed: answer it."""
        self._cancel_timer()
        if self._ear is not None and self._ear.done is None:
            self.turn.drop(self._ear)
            if self.microphone is not None:
                self.microphone.close()
        self.turn.outcome.commit(committed_s)
        self.answer.begin()
        self.turn.seal()
