"""Asking aloud: our own voice asks, the gateway understands and answers."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soxr
from rich.console import Console
from upbeat.v1.types_pb2 import VoiceOptions

from clients.ask import MICROPHONE_RATE, ask
from clients.client import Upbeat
from clients.errors import ClientError
from clients.events import Audio
from clients.media import read_wav, write_wav
from clients.oneshot import say

QUESTION = "Good morning, how are you?"


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_a_spoken_question_is_understood_and_answered_aloud(
    upbeat: Upbeat, console: Console, tmp_path: Path
) -> None:
    question, out = tmp_path / "question.wav", tmp_path / "answer.wav"
    await say(upbeat, console, QUESTION, question, "", VoiceOptions())
    await ask(upbeat, console, question, out, "prefill")
    pcm16, _ = read_wav(out)
    assert np.abs(np.frombuffer(pcm16, "<i2")).max() > 1000
    _, heard, rest = printed(console).partition(f"heard {QUESTION}\n")
    assert heard
    assert "first audio" in rest


@pytest.mark.parametrize("silence_s", [2.0, 0.0], ids=["silence", "the end of the input"])
async def test_what_ends_the_question_of_a_microphone(upbeat: Upbeat, address: str, silence_s: float) -> None:
    pieces = [event async for event in upbeat.synthesize(QUESTION) if isinstance(event, Audio)]
    spoken = np.frombuffer(b"".join(piece.pcm16 for piece in pieces), "<i2").astype(np.float32)
    sound = soxr.resample(spoken, pieces[0].sample_rate, MICROPHONE_RATE)
    whole = np.concatenate([sound, np.zeros(round(silence_s * MICROPHONE_RATE), np.float32)])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "clients.cli", "ask", "-"),
        env=os.environ | {"UPBEAT_SERVER": address, "COLUMNS": "100"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(whole.astype("<i2").tobytes()), 60)
    assert process.returncode == 0
    assert f"heard {QUESTION}" in output.decode()


async def test_where_nothing_is_said_nothing_is_answered(
    upbeat: Upbeat, console: Console, tmp_path: Path
) -> None:
    path = tmp_path / "silence.wav"
    write_wav(path, [b"\0\0" * 4000], 8000)
    with pytest.raises(ClientError, match="no speech was recognised"):
        await ask(upbeat, console, path, None, "prefill")
