"""Speaking: what a request may ask for, and what is told where it asks for more."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipelines.contract import Job
from pipelines.errors import Exhausted, InvalidRequest, NotFound, WrongState
from pipelines.messages import JobClass, Playback, SpeechRequest, TextRequest
from pipelines.speech.settings import SpeechSettings
from tests.pipelines.speech.fake_speaker import FakeSpeaker
from tests.pipelines.speech.speech_driver import admitted, drained, pipeline_of, say


@pytest.mark.parametrize(
    ("request_", "field", "told"),
    [
        (SpeechRequest(rate=0.4), "voice.rate", "0.5 to 2.0"),
        (SpeechRequest(rate=math.nan), "voice.rate", "0.5 to 2.0"),
        (SpeechRequest(pitch=2.1), "voice.pitch", "0.5 to 2.0"),
        (SpeechRequest(pitch=math.inf), "voice.pitch", "0.5 to 2.0"),
        (SpeechRequest(sample_rate=7999), "voice.sample_rate", "8000 to 48000"),
        (SpeechRequest(sample_rate=-1), "voice.sample_rate", "8000 to 48000"),
        (SpeechRequest(sample_rate=96_000), "voice.sample_rate", "8000 to 48000"),
        (TextRequest(), "model", "TextRequest"),
    ],
)
def test_bad_requests_name_the_field_and_the_limit(request_: SpeechRequest, field: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as raised:
        pipeline_of(FakeSpeaker()).prepare(request_, None)
    assert raised.value.field == field


@pytest.mark.parametrize("rate", [0, 8000, 22_050, 48_000])
def test_good_requests(rate: int) -> None:
    request = SpeechRequest(voice="bert", rate=0.5, pitch=2.0, sample_rate=rate)
    assert pipeline_of(FakeSpeaker()).prepare(request, None) == request


def test_an_unknown_voice_is_told_the_known_ones() -> None:
    with pytest.raises(NotFound, match="anna, bert") as raised:
        pipeline_of(FakeSpeaker()).prepare(SpeechRequest(voice="carl"), None)
    assert raised.value.field == "voice.voice"


def test_other_inputs_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="text is expected"):
        pipeline_of(FakeSpeaker()).prepare(SpeechRequest(), Playback(0, 0))


@pytest.mark.parametrize("text", ["", "  \n "])
def test_nothing_to_say(text: str) -> None:
    pipeline = pipeline_of(FakeSpeaker())
    with pytest.raises(InvalidRequest) as raised:
        say(pipeline, admitted(pipeline), text)
    assert raised.value.field == "text"


def test_too_much_text_names_the_limit() -> None:
    pipeline = pipeline_of(FakeSpeaker(), SpeechSettings(max_characters=100))
    job = admitted(pipeline)
    with pytest.raises(InvalidRequest, match="at most 100 characters"):
        say(pipeline, job, "a" * 101)
    say(pipeline, job, "Hello there. " * 5, final=False)
    with pytest.raises(InvalidRequest, match="at most 100 characters"):
        say(pipeline, job, "a" * 50)
    drained(pipeline, [job])
    say(pipeline, job, "a" * 50)


def test_text_after_the_final_text() -> None:
    pipeline = pipeline_of(FakeSpeaker())
    job = admitted(pipeline)
    say(pipeline, job, "Hello.")
    with pytest.raises(WrongState, match="final"):
        say(pipeline, job, "more")


def test_no_room_says_when_to_come_back() -> None:
    pipeline = pipeline_of(FakeSpeaker(), SpeechSettings(max_jobs=2))
    jobs = [admitted(pipeline, number) for number in (1, 2)]
    for job in jobs:
        say(pipeline, job, "Some words to say. " * 20)
    with pytest.raises(Exhausted, match="2 listeners") as raised:
        admitted(pipeline, 3)
    assert 10 < raised.value.retry_after_s < 40
    pipeline.release(jobs[0])
    admitted(pipeline, 3)


def test_voices_ahead_of_their_commit_keep_no_committed_one_out() -> None:
    pipeline = pipeline_of(FakeSpeaker(), SpeechSettings(max_jobs=1))
    request = SpeechRequest()
    for number, committed in enumerate((False, True)):
        job = Job(number, "voice", "local", JobClass.REALTIME, request, committed=committed)
        pipeline.admit(job, pipeline.prepare(request, None))
    with pytest.raises(Exhausted):
        pipeline.admit(Job(2, "voice", "local", JobClass.REALTIME, request), request)


@pytest.mark.parametrize("field", ["max_jobs", "max_rows", "max_characters"])
def test_settings_name_what_is_wrong(field: str) -> None:
    wrong: dict[str, Any] = {field: 0}
    with pytest.raises(InvalidRequest, match=f"speech.{field}"):
        SpeechSettings(**wrong)


def test_settings_refuse_endless_pauses() -> None:
    with pytest.raises(InvalidRequest, match="sentence_pause_s"):
        SpeechSettings(sentence_pause_s=6.0)
