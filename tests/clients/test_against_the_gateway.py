"""The client library and the client in another language against the real gateway, over a scripted device."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clients import Audio, ClientError, Done, Image, ImageOptions, Token, Transcript, Upbeat
from pipelines.messages import Done as DeviceDone
from pipelines.messages import FinishReason, Submit, TextRequest, TokenChunk
from server.app import RunningServer
from tests.clients.node import run_node


class Wire:
    """A connection that can be cut: a TCP relay to `port`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: list[asyncio.StreamWriter] = []
        self.address = ""

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends += [writer, back]
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def wire(running: RunningServer) -> AsyncIterator[Wire]:
    cuttable = Wire(running.port)
    server = await asyncio.start_server(cuttable.relay, "127.0.0.1", 0)
    cuttable.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield cuttable
    cuttable.cut()
    server.close()


@pytest.fixture
async def real(running: RunningServer, link: object) -> AsyncIterator[Upbeat]:
    async with Upbeat(f"127.0.0.1:{running.port}") as client:
        yield client


async def test_three_modalities_over_one_stream(real: Upbeat) -> None:
    async with real.converse(modalities=("text", "speech", "image")) as talk:
        assert talk.ready.audio_sample_rate == 16_000
        await talk.append("Tell me about the green boat")
        await talk.revise(18, "red boat.")
        await talk.commit()
        events = [event async for event in talk]
        await talk.commit("And again.")
        again = [event async for event in talk]
    assert {type(event) for event in events} == {Token, Audio, Image, Done}
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})
    assert events[-1].turn_id != again[-1].turn_id


async def test_a_cut_connection_costs_nothing(link: Any, wire: Wire) -> None:
    asked: asyncio.Queue[int] = asyncio.Queue()

    def note(_: object, message: object) -> None:
        if isinstance(message, Submit) and isinstance(message.request, TextRequest):
            asked.put_nowait(message.job_id)

    link.reset(note)
    texts = []
    async with (
        asyncio.timeout(30),
        Upbeat(wire.address) as client,
        client.converse(resume_window_s=20) as talk,
    ):
        await talk.commit("count")
        job = await asked.get()
        revision = link.inputs(job)[0].number
        pieces = [TokenChunk(f"{number} ", (number,), revision) for number in range(6)]
        link.emit(job, *pieces[:3])
        async for event in talk:
            if isinstance(event, Token):
                texts.append(event.text)
            if len(texts) == 1:
                wire.cut()
                link.emit(job, *pieces[3:], DeviceDone(FinishReason.STOP))
    assert "".join(texts) == "0 1 2 3 4 5 "


async def test_the_servers_words_reach_the_caller(real: Upbeat) -> None:
    with pytest.raises(ClientError) as caught:
        _ = [event async for event in real.draw("a boat", image=ImageOptions(steps=10_000))]
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.field == "image.steps"
    with pytest.raises(ClientError, match="nobody") as missing:
        _ = [event async for event in real.generate("Hi", model="nobody")]
    assert missing.value.code == "NOT_FOUND"


async def test_every_call(real: Upbeat) -> None:
    async def sound() -> AsyncIterator[bytes]:
        yield b"\0\0" * 800

    assert {type(event) async for event in real.generate("Hi")} == {Token, Done}
    assert {type(event) async for event in real.synthesize("Hello.")} == {Audio, Done}
    assert {type(event) async for event in real.draw("a boat")} == {Image, Done}
    assert {type(event) async for event in real.transcribe(sound(), 16_000)} == {Transcript, Done}
    assert len((await real.models()).models) == 4
    assert await real.health("upbeat.v1.ConversationService") == "SERVING"


async def test_a_client_in_another_language(node_client: Path, running: RunningServer, link: object) -> None:
    code, events, errors = await run_node(node_client, f"127.0.0.1:{running.port}", "text", "speech", "image")
    assert code == 0, errors
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("ready", "turn_done")
    assert {"token", "audio", "image"} < set(kinds)
    sequences = [event["sequence"] for event in events[1:]]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
