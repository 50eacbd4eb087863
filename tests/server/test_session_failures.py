"""What fails in a conversation, and how far the failure goes."""

from __future__ import annotations

import pytest

from pipelines.errors import DeviceLost, Draining, Exhausted, InvalidRequest
from pipelines.messages import (
    Failed,
    FinishReason,
    ImageRequest,
    Message,
    ModelInfo,
    SpeechRequest,
    TextRequest,
    TokenChunk,
)
from server.foresight import TICK_S
from tests.fakes import SPEECH, tokens
from tests.server.session_bench import AT_ONCE, DONE, Bench, drawing, last, said, spoken


def test_a_failed_text_ends_the_turn_and_not_the_stream() -> None:
    bench = spoken()
    bench.session.commit("Hi")
    speech, text = bench.link.submitted(SpeechRequest)[0].job_id, bench.link.submitted(TextRequest)[0].job_id
    bench.link.emit(text, Failed("InvalidRequest", "prompt: 600 tokens, the context has 512", "prompt"))
    done = last(bench.events())
    assert done.reason is FinishReason.FAILED
    assert isinstance(done.error, InvalidRequest)
    assert bench.link.cancelled() == [speech]
    assert bench.session.active is None


@pytest.mark.parametrize("speech", [None, SPEECH])
def test_what_fails_ahead_of_the_commit_is_tried_again_at_the_commit(speech: ModelInfo | None) -> None:
    bench = Bench(speech=speech)
    bench.session.append("a very long prompt")
    bench.clock.advance(TICK_S)
    first = bench.link.submitted(TextRequest)[0].job_id
    bench.link.emit(first, Failed("InvalidRequest", "prompt: too long", "prompt"))
    assert bench.events() == []
    bench.session.revise(0, "short")
    bench.clock.advance(TICK_S)
    assert len(bench.link.submitted(TextRequest)) == 1
    bench.session.commit(None)
    second = bench.link.submitted(TextRequest)[1]
    assert second.committed
    assert second.consumer == (bench.link.submitted(SpeechRequest)[1].job_id if speech else 0)
    bench.link.emit(second.job_id, *tokens("fine", 0), DONE)
    assert said(bench.events()) == "fine"


def test_no_room_ahead_of_the_commit_is_no_error() -> None:
    bench = Bench(jobs=1)
    taken = bench.admission.job("fake-text", "local")
    bench.session.append("Hi")
    bench.clock.advance(TICK_S)
    assert bench.events() == []
    taken.leave()
    bench.session.commit(None)
    bench.link.emit(1, DONE)
    assert last(bench.events()).reason is FinishReason.STOP


def test_tokens_before_a_failure_still_leave() -> None:
    bench = Bench()
    bench.session.commit("Hi")
    bench.link.emit(1, *tokens("one", 1), Failed("ModelBroken", "NaN"))
    events = bench.events()
    assert said(events) == "one"
    assert last(events).reason is FinishReason.FAILED


def test_a_failed_image_lets_the_text_finish() -> None:
    bench = drawing()
    bench.session.commit("Hi")
    text, image = bench.link.submitted(TextRequest)[0].job_id, bench.link.submitted(ImageRequest)[0].job_id
    bench.link.emit(image, Failed("Exhausted", "full", "", 3.0))
    assert bench.events() == []
    bench.link.emit(text, *tokens("done", 1), DONE)
    events = bench.events()
    assert said(events) == "done"
    assert isinstance(last(events).error, Exhausted)
    bench.session.commit("Again")
    assert bench.link.submitted(TextRequest)[1].request == TextRequest(
        (Message("user", "Hi"), Message("assistant", "done"))
    )


def test_too_many_jobs_fail_the_turn_with_a_time_to_come_back() -> None:
    bench = Bench(jobs=1, speech=None)
    taken = bench.admission.job("fake-text", "local")
    done = last(bench.turn("Hi"))
    assert isinstance(done.error, Exhausted)
    assert done.error.retry_after_s > 0
    taken.leave()
    bench.link.script = AT_ONCE
    assert last(bench.turn("Hi")).reason is FinishReason.STOP


def test_a_lost_device_ends_the_stream() -> None:
    bench = Bench()
    bench.session.commit("Hi")
    bench.link.emit(1, *tokens("one", 1))
    bench.link.die()
    assert said([event for event in [bench.attachment.next(bench.clock.now())] if event]) == "one"
    with pytest.raises(DeviceLost):
        bench.events()
    assert [done.reason for done in bench.finished] == [FinishReason.FAILED]


def test_a_device_lost_between_turns_fails_the_next_one() -> None:
    bench = Bench(AT_ONCE)
    bench.turn("Hi")
    bench.link.die()
    bench.session.commit("Hi")
    with pytest.raises(DeviceLost):
        bench.events()


def test_a_commit_that_crosses_with_the_loss_of_the_device_says_that_it_is_lost() -> None:
    bench = Bench()
    bench.session.append("Hi")
    bench.link.die()
    bench.clock.advance(TICK_S)
    with pytest.raises(DeviceLost):
        bench.session.commit(None)


def test_draining_finishes_the_turn_then_ends_the_stream() -> None:
    bench = Bench()
    bench.session.commit("Hi")
    bench.dispatcher.draining = True
    bench.link.emit(1, *tokens("one", 1), DONE)
    event = bench.attachment.next(bench.clock.now())
    assert event is not None
    assert event.body == TokenChunk("one", (0,), 1)
    with pytest.raises(Draining):
        bench.events()
    with pytest.raises(Draining):
        bench.session.append("x")


def test_draining_drops_a_prompt_that_is_still_being_written() -> None:
    bench = Bench()
    bench.session.append("Hi")
    bench.dispatcher.draining = True
    event = bench.attachment.next(bench.clock.now())
    assert event is not None
    assert last([event]).reason is FinishReason.CANCELLED
    with pytest.raises(Draining):
        bench.events()
