from __future__ import annotations

import pytest
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types

from clients.client import Upbeat
from clients.errors import ClientError
from clients.events import Audio, Discarded, Done, Image, Token
from tests.clients.scripted_gateway import Script, status


def said(sequence: int, turn: str = "t1", **event: object) -> gateway.ConverseResponse:
    return gateway.ConverseResponse(session_id="s1", turn_id=turn, sequence=sequence, **event)  # type: ignore[arg-type]


def token(sequence: int, text: str, turn: str = "t1") -> gateway.ConverseResponse:
    return said(sequence, turn, token=types.TokenEvent(text=text, tokens=1))


def done(sequence: int, turn: str = "t1") -> gateway.ConverseResponse:
    return said(sequence, turn, turn_done=types.DoneEvent(finish_reason=types.FINISH_REASON_STOP))


def image(sequence: int, data: bytes, part: int, final: bool) -> gateway.ConverseResponse:
    stage = {"final": True} if final else {"preview": True}
    return said(
        sequence,
        image=types.ImageEvent(step=4, steps=8, mime="image/png", data=data, part=part, parts=2, **stage),
    )


async def test_the_prompt_travels_piece_by_piece_and_the_answer_comes_back_typed(
    upbeat: Upbeat, script: Script
) -> None:
    script.scripts.append(
        [
            token(1, "A "),
            said(2, discarded=gateway.DiscardedEvent(revision=1)),
            said(3, audio=types.AudioEvent(pcm16=b"\0\0" * 160, sample_rate=16_000, start_ms=0)),
            done(4),
        ]
    )
    async with upbeat.converse(modalities=("text", "speech"), history=[("user", "Hi")]) as talk:
        assert talk.ready.audio_sample_rate == 16_000
        await talk.append("the green boat")
        await talk.revise(4, "red boat")
        await talk.commit()
        events = [event async for event in talk]
    assert [type(event) for event in events] == [Token, Discarded, Audio, Done]
    assert events[0] == Token(
        session_id="s1", turn_id="t1", sequence=1, text="A ", tokens=1, revision=0, details=()
    )
    assert isinstance(events[2], Audio)
    assert events[2].duration_ms == 10
    assert isinstance(events[3], Done)
    assert events[3].finish_reason == "stop"
    start, *rest = script.heard[0]
    assert list(start.start.modalities) == [types.MODALITY_TEXT, types.MODALITY_SPEECH]
    assert start.start.history[0] == types.ChatMessage(role=types.ROLE_USER, content="Hi")
    assert rest == [
        gateway.ConverseRequest(append=gateway.AppendText(text="the green boat")),
        gateway.ConverseRequest(revise=gateway.ReviseText(from_char=4, text="red boat")),
        gateway.ConverseRequest(commit=gateway.CommitPrompt()),
    ]
    assert script.metadata[0]["authorization"] == "Bearer secret"


async def test_what_the_wire_has_no_room_for_is_named(upbeat: Upbeat) -> None:
    async with upbeat.converse() as talk:
        with pytest.raises(ClientError, match=r"revise\.from_char: 0 to 4294967295, not -1"):
            await talk.revise(-1, "x")
        for report in (talk.interrupt, talk.playback):
            with pytest.raises(ClientError, match="played_ms: 0 to 4294967295, not -5"):
                await report(-5)


async def test_an_image_in_parts_arrives_whole(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append([image(1, b"ab", 0, True), image(2, b"cd", 1, True), done(3)])
    async with upbeat.converse(modalities=("image",)) as talk:
        await talk.commit("a boat")
        events = [event async for event in talk]
    assert isinstance(events[0], Image)
    assert (events[0].data, events[0].final, events[0].sequence) == (b"abcd", True, 2)
    assert script.heard[0][1].commit.text == "a boat"


async def test_each_iteration_is_one_turn(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append([token(1, "one"), done(2), token(1, "two", "t2"), done(2, "t2")])
    texts = []
    async with upbeat.converse() as talk:
        for _ in range(2):
            await talk.commit("again")
            texts.append([event.text async for event in talk if isinstance(event, Token)])
    assert texts == [["one"], ["two"]]


async def test_a_lost_stream_goes_on_behind_the_last_event(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append([token(1, "one "), token(2, "two "), "drop"])
    script.scripts.append(["drop"])
    script.scripts.append([token(2, "two "), token(3, "three"), done(4)])
    async with upbeat.converse(resume_window_s=20) as talk:
        await talk.commit("count")
        text = [event.text async for event in talk if isinstance(event, Token)]
    assert text == ["one ", "two ", "three"]
    resume = gateway.ResumeTurn(session_id="s1", turn_id="t1", last_sequence=2)
    assert [heard[0] for heard in script.heard[1:]] == [gateway.ConverseRequest(resume=resume)] * 2


async def test_without_a_window_a_lost_stream_is_an_error(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append([token(1, "one"), "drop"])
    async with upbeat.converse() as talk:
        await talk.commit("count")
        with pytest.raises(ClientError) as caught:
            _ = [event async for event in talk]
    assert caught.value.connection_lost
    assert talk.position.last_sequence == 1


async def test_another_client_resumes_from_the_position(upbeat: Upbeat, script: Script, target: str) -> None:
    script.scripts.append([token(1, "one "), "drop"])
    script.scripts.append([token(2, "two"), done(3)])
    async with upbeat.converse() as talk:
        await talk.commit("count")
        with pytest.raises(ClientError):
            _ = [event async for event in talk]
    async with Upbeat(target) as other, other.resume(talk.position) as rest:
        events = [event async for event in rest]
    assert [event.sequence for event in events] == [2, 3]


async def test_the_servers_refusal_names_field_and_reason(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append([status(9, "revise: the prompt is committed", "revise")])
    async with upbeat.converse(resume_window_s=20) as talk:
        await talk.commit("x")
        with pytest.raises(ClientError) as caught:
            _ = [event async for event in talk]
        with pytest.raises(ClientError) as again:
            await talk.append("more")
    error = caught.value
    assert (error.code, error.field, error.reason) == ("FAILED_PRECONDITION", "revise", "SCRIPTED")
    assert again.value.field == "revise"


async def test_nothing_can_be_said_before_and_after(upbeat: Upbeat) -> None:
    talk = upbeat.converse()
    with pytest.raises(ClientError, match="not open"):
        await talk.append("early")
    async with talk:
        await talk.append("in time")
    with pytest.raises(ClientError):
        await talk.append("late")
