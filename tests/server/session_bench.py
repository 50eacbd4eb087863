"""A session without gRPC: a fake device, a clock that the test moves, events drained by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipelines.messages import Done, TextRequest, TokenChunk
from pipelines.simultaneous.policies import policy
from server.admission import Admission
from server.attachment import Attachment
from server.dispatch import Dispatcher
from server.events import Event, TurnDone
from server.foresight import TICK_PER_CHAR_S, TICK_S
from server.plan import Ahead, Mode, Plan
from server.replay import ReplayBudget
from server.session import Session, SessionLimits
from server.sessions import Sessions
from tests.fakes import EAR, IMAGE, SPEECH, STOP, TEXT, Device, FakeClock, FakeLink, Script


class Bench:
    """One session with text; `plan` options add to it."""

    def __init__(self, script: Script | None = None, jobs: int = 9, **plan: Any) -> None:
        self.clock = FakeClock()
        self.link = FakeLink(script=script)
        self.admission = Admission(9, 9, jobs, self.clock.now)
        self.dispatcher = Dispatcher(self.link, self.admission)
        self.sessions = Sessions(self.clock)
        self.finished: list[TurnDone] = []
        self.session = Session(
            "s",
            replace(Plan(tenant="local", text=TEXT), **plan),
            self.dispatcher,
            self.clock,
            SessionLimits(),
            ReplayBudget(1 << 20),
            self.finished.append,
        )
        self.attachment = self.sessions.open(self.session)

    def events(self, attachment: Attachment | None = None) -> list[Event]:
        """All that may leave now."""
        source = attachment or self.attachment
        found: list[Event] = []
        while (event := source.next(self.clock.now())) is not None:
            found.append(event)
        return found

    def turn(self, prompt: str) -> list[Event]:
        """A turn that the device answers at once."""
        self.session.commit(prompt)
        return self.events()


def spoken(script: Script | None = None) -> Bench:
    return Bench(script, speech=SPEECH)


def drawing(**plan: Any) -> Bench:
    return Bench(None, image=IMAGE, **plan)


def listening(**plan: Any) -> Bench:
    return Bench(None, transcription=EAR, audio_sample_rate=16_000, **plan)


def answering(name: str = "wait_k=1", *, emit: bool = False, jobs: int = 9, **plan: Any) -> Bench:
    """Reads along with the policy `name`."""
    ahead = Ahead(mode=Mode.ANSWER_AHEAD, policy=policy(name, ""), emit_before_commit=emit)
    return Bench(None, jobs=jobs, ahead=ahead, **plan)


def thinking(**plan: Any) -> Bench:
    """Thinks ahead, and shows its thoughts."""
    return Bench(None, ahead=Ahead(mode=Mode.THINK_AHEAD, thoughts=True), **plan)


def typed(on: Bench, text: str) -> None:
    """And the time passes that edits are gathered for."""
    on.session.append(text)
    on.clock.advance(TICK_S + TICK_PER_CHAR_S * 200)


def inputs(on: Bench, kind: type = TextRequest, number: int = 0) -> list[Any]:
    """What the device was sent of the job that was submitted as `number`."""
    return on.link.inputs(on.link.submitted(kind)[number].job_id)


def said(events: list[Event]) -> str:
    return "".join(event.body.text for event in events if isinstance(event.body, TokenChunk))


def last(events: list[Event]) -> TurnDone:
    body = events[-1].body
    assert isinstance(body, TurnDone)
    return body


DONE = Done(STOP)
AT_ONCE = Device()
