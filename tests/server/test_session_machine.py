"""Any order of client, device, time and network: the session's promises hold."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipelines.errors import UpbeatError
from pipelines.messages import (
    Done,
    Failed,
    ImageRequest,
    SpeechRequest,
    TextRequest,
    TranscribeRequest,
    TranscriptChunk,
)
from server.events import Event, Ready, TurnDone
from tests.fakes import EAR, IMAGE, SPEECH, audio, picture, tokens
from tests.server.session_bench import DONE, Bench


class Conversation(RuleBasedStateMachine):
    """Rules of the wire: a turn's events count from 1, end with one turn_done, and never come late."""

    hands_free = False

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(
            speech=SPEECH, image=IMAGE, transcription=EAR, audio_sample_rate=16_000, draw_on_request=True,
            resume_window_s=5.0, commit_on_silence=True, interrupt_on_speech=self.hands_free,
        )  # fmt: skip
        self.spoken_into: set[int] = set()
        self.attachment = self.bench.attachment
        self.seen: list[Event] = []
        self.over = False

    def _act(self, action: Callable[[], object]) -> None:
        """An error of the client's ends its stream, as on the wire; it comes back with another."""
        try:
            action()
        except UpbeatError:
            self._reconnect()

    def _reconnect(self) -> None:
        self.bench.sessions.detach(self.attachment)
        latest = self.seen[-1].turn_id if self.seen else ""
        got = self.seen[-1].sequence if self.seen else 0
        try:
            self.attachment = self.bench.sessions.resume("local", "s", latest, got)
        except UpbeatError:
            self.over = True  # No turn has begun, or it ended more than a minute ago.

    @precondition(lambda self: not self.over)
    @rule(text=st.sampled_from(["a", "hello there", ""]))
    def append(self, text: str) -> None:
        self._act(lambda: self.bench.session.append(text))

    @precondition(lambda self: not self.over)
    @rule(at=st.integers(0, 6))
    def revise(self, at: int) -> None:
        self._act(lambda: self.bench.session.revise(at, "x"))

    @precondition(lambda self: not self.over)
    @rule()
    def audio(self) -> None:
        self._act(lambda: self.bench.session.audio(bytes(320), 0))

    @precondition(lambda self: not self.over)
    @rule(text=st.sampled_from([None, "say this"]))
    def commit(self, text: str | None) -> None:
        self._act(lambda: self.bench.session.commit(text))

    @precondition(lambda self: not self.over)
    @rule(played_ms=st.integers(0, 2000), action=st.sampled_from(["interrupt", "playback", "cancel"]))
    def steer(self, played_ms: int, action: str) -> None:
        session = self.bench.session
        if action == "cancel":
            self._act(lambda: session.cancel(""))
        else:
            self._act(lambda: getattr(session, action)(played_ms))

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.3, 2.0]))
    def wait(self, seconds: float) -> None:
        self.bench.clock.advance(seconds)

    @rule(data=st.data(), end=st.sampled_from([None, None, DONE, Failed("Exhausted", "full", "", 1.0)]))
    def device(self, data: st.DataObject, end: Done | Failed | None) -> None:
        link = self.bench.link
        running = [number for number, job in link.jobs.items() if not job.cancelled]
        if not running:
            return
        number = data.draw(st.sampled_from(running))
        match link.jobs[number].submit.request:
            case TextRequest():
                link.emit(
                    number, *tokens(data.draw(st.sampled_from(["one two", "<draw>a cat</draw>", "<dr"])))
                )
            case SpeechRequest():
                link.emit(number, audio(0, 250))
            case ImageRequest():
                link.emit(number, picture(False))
            case TranscribeRequest(open=True) if number not in self.spoken_into:
                self.spoken_into.add(number)
                link.emit(number, TranscriptChunk("", 0.0, False, 0, 10))
            case TranscribeRequest(open=open_):
                words = data.draw(st.sampled_from(["hello", ""])) if open_ else "hello"
                final = data.draw(st.booleans()) or not words
                link.emit(number, TranscriptChunk(words, 0.5, final, 0, 10))
                self.spoken_into -= {number} if final else set()
        if end is not None:
            link.emit(number, end)

    @precondition(lambda self: not self.over)
    @rule()
    def read(self) -> None:
        for _ in range(50):
            try:
                event = self.attachment.next(self.bench.clock.now())
            except UpbeatError:
                self._reconnect()
                return
            if event is None:
                return
            self._check(event)
            self.seen.append(event)

    @precondition(lambda self: not self.over and self.seen)
    @rule(back=st.integers(0, 3))
    def lose_and_resume(self, back: int) -> None:
        """The client has not got the last few events of its latest turn."""
        latest = self.seen[-1].turn_id
        while back and len(self.seen) > 1 and self.seen[-2].turn_id == latest:
            self.seen.pop()
            back -= 1
        self._reconnect()

    def _check(self, event: Event) -> None:
        assert not isinstance(event.body, Ready)
        mine = [each for each in self.seen if each.turn_id == event.turn_id]
        assert event.sequence == len(mine) + 1
        assert not any(isinstance(each.body, TurnDone) for each in mine)
        assert not self.seen or _number(self.seen[-1]) <= _number(event)

    @invariant()
    def jobs_hold_their_slots_and_no_more(self) -> None:
        used = sum(slots.used for slots in self.bench.admission._jobs.values())
        assert 0 <= used <= 4
        if self.bench.session.active is None:
            assert used <= self.hands_free

    def teardown(self) -> None:
        self.bench.sessions.detach(self.attachment)
        self.bench.clock.advance(1000)
        assert len(self.bench.sessions) == 0
        assert sum(slots.used for slots in self.bench.admission._jobs.values()) == 0


def _number(event: Event) -> int:
    return int(event.turn_id.rpartition(".")[2])


class HandsFree(Conversation):
    """The microphone stays open."""

    hands_free = True


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHandsFree = HandsFree.TestCase
TestHandsFree.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
