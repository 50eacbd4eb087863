"""How far a job is ahead of whom it serves, and what the executor makes of it."""

from __future__ import annotations

import pytest

from pipelines.contract import Job
from pipelines.messages import Done, JobClass, Playback, PromptRevision, TextRequest
from server.executor.listeners import AHEAD_S, BACK_S, READ_BACK_S, TOKEN_S, played, read
from tests.server.executor.bench import Bench
from tests.server.executor.toy import ToyPipeline

R, I, S, B = JobClass  # noqa: E741


def job() -> Job:
    return Job(1, "p", "t", JobClass.INTERACTIVE, TextRequest())


@pytest.mark.parametrize(("buffered_s", "ahead"), [(0.0, False), (AHEAD_S, False), (AHEAD_S + 0.1, True)])
def test_a_listener_with_enough_buffered_need_not_be_hurried(buffered_s: float, ahead: bool) -> None:
    voice = job()
    played(voice, 7.0, buffered_s)
    assert voice.dry_s == 7.0 + buffered_s
    assert (voice.ahead_until_s > 7.0) is ahead
    if ahead:
        assert voice.ahead_until_s == pytest.approx(7.0 + buffered_s - BACK_S)


def test_a_reader_is_served_at_once_until_there_is_enough_to_read() -> None:
    chat, given = job(), 0
    while chat.ahead_until_s < 0:
        given += 1
        read(chat, 1.0, 1)
    assert given in (5, 6)
    assert chat.ahead_until_s == pytest.approx(1.0 + given * TOKEN_S - READ_BACK_S)


def test_a_slow_stream_is_never_ahead() -> None:
    chat = job()
    for token in range(100):
        read(chat, token * 2 * TOKEN_S, 1)
    assert chat.ahead_until_s < 0


def test_a_reader_who_has_enough_lets_an_image_go_on() -> None:
    """A chat that streams faster than it is read gives way to an image of lower class, and still ends."""
    chat, image = ToyPipeline("chat", points=2), ToyPipeline("image", points=2)
    bench = Bench(chat, image, yield_ms=0.2)
    bench.submit(I, what=40, pipeline="chat")
    bench.submit(S, what=10, pipeline="image")
    bench.run()
    ends = [number for number, chunk in bench.out if isinstance(chunk, Done)]
    assert ends == [2, 1]


def test_text_that_is_spoken_is_not_held_up_for_a_reader() -> None:
    speech, text, image = ToyPipeline("speech"), ToyPipeline("text", points=2), ToyPipeline("image", points=2)
    bench = Bench(speech, text, image, yield_ms=0.2)
    voice = bench.submit(R, pipeline="speech", committed=False)
    bench.submit(I, what=40, pipeline="text", consumer=voice)
    bench.submit(S, what=10, pipeline="image")
    bench.update(voice, Playback(0, 100))
    bench.run()
    bench.update(voice, PromptRevision(1, "x", True))
    bench.run()
    assert [number for number, chunk in bench.out if isinstance(chunk, Done)] == [2, 3, 1]
