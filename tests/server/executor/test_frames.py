"""Every message survives the link unchanged; payloads travel in a frame of their own."""

from __future__ import annotations

import msgspec
import pytest

from pipelines.messages import (
    AudioChunk,
    Cancel,
    Credits,
    DeviceTimings,
    Done,
    Down,
    Emit,
    Failed,
    FinishReason,
    ImageChunk,
    ImageRequest,
    JobClass,
    LoadFailed,
    Message,
    ModelInfo,
    Playback,
    PromptRevision,
    Ready,
    Sampling,
    SpeechAudio,
    SpeechRequest,
    SpeechText,
    StartTrace,
    Stats,
    Stop,
    Submit,
    TextRequest,
    TokenChunk,
    Trace,
    TranscribeRequest,
    TranscriptChunk,
    Up,
    Update,
    Usage,
)
from server.executor.frames import pack_down, pack_up, unpack_down, unpack_up

TEXT = TextRequest((Message("user", "Grüße 🙂"),), Sampling(0.5, stop=("\n",), logprobs=3))
SPOKEN = SpeechText("a", True)
REVISED = PromptRevision(1, "hi", False)
DOWN: list[Down] = [
    Submit(
        1, "m", "s", "t", "local", JobClass.REALTIME, TEXT, 8, 1.5, False, 2, PromptRevision(1, "hi", False)
    ),
    Submit(2, "m", "s", "t", "local", JobClass.BATCH, ImageRequest("a red star", steps=9), 4),
    Submit(3, "m", "s", "t", "local", JobClass.STANDARD, SpeechRequest("v", 1.5), 4, first=SPOKEN),
    Submit(4, "m", "s", "t", "local", JobClass.STANDARD, TranscribeRequest(8000), 4),
    Update(1, SpeechAudio(b"\0\1\xff", False)),
    Update(1, Playback(400, 120)),
    Cancel(1),
    Credits(1, 3),
    StartTrace(2.5),
    Stop(),
]
UP: list[Up] = [
    Emit(1, TokenChunk("é", (1, 2), 3, (-0.5, -1.0), ((("a", -0.5),), ()))),
    Emit(1, AudioChunk(b"\0\1" * 800, 16000, 40)),
    Emit(1, ImageChunk(b"\x89PNG", "image/png", 128, 128, 4, 28, False)),
    Emit(1, TranscriptChunk("hello", 0.5, False, 0, 300)),
    Emit(1, Done(FinishReason.LENGTH, Usage(1, 2), DeviceTimings(1.0, 2.0, 3), "full")),
    Emit(1, Failed("InvalidRequest", "image.width: too wide", "image.width")),
    Ready((ModelInfo("m", "text", "llama", 10, voices=("a",), sizes=((128, 128),)),)),
    LoadFailed("models/x/config.json: not there"),
    Trace(b"{}"),
    Stats(1, 2, 3, 4, 5, 6.0, 7.0, {"text": 0.1}),
]


@pytest.mark.parametrize("message", DOWN, ids=lambda m: type(m).__name__)
def test_down(message: Down) -> None:
    assert unpack_down(pack_down(message)) == message


@pytest.mark.parametrize("message", UP, ids=lambda m: type(m).__name__)
def test_up(message: Up) -> None:
    assert unpack_up(pack_up(message)) == message


def test_payload_has_a_frame_of_its_own() -> None:
    payload = b"\1" * 10_000
    header, frame = pack_up(Emit(1, AudioChunk(payload, 16000, 0)))
    assert frame is payload
    assert len(header) < 100


def test_garbage_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        unpack_down(b"\xc1garbage")
