"""A client of Converse for tests: says things, collects whole event lists."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc, types_pb2


class Client:
    """One stream. Reads are bounded, so that a test that waits for nothing fails."""

    def __init__(self, channel: grpc.aio.Channel, **call: Any) -> None:
        self.call = gateway_pb2_grpc.ConversationServiceStub(channel).Converse(**call)
        self.events: list[pb.ConverseResponse] = []

    async def say(self, **action: Any) -> None:
        """One request: say(append=..., or commit=...)."""
        await self.call.write(pb.ConverseRequest(**action))

    async def start(self, *modalities: types_pb2.Modality.ValueType, **options: Any) -> pb.ConverseResponse:
        """The opening; returns `ready`."""
        await self.say(start=pb.ConverseStart(modalities=modalities, **options))
        return await self.read()

    async def append(self, text: str) -> None:
        await self.say(append=pb.AppendText(text=text))

    async def commit(self, text: str | None = None) -> None:
        await self.say(commit=pb.CommitPrompt(text=text))

    async def read(self) -> pb.ConverseResponse:
        """The next event. Raises: AioRpcError; EOFError at the stream's end."""
        event = await self.call.read()
        if not isinstance(event, pb.ConverseResponse):
            raise EOFError
        self.events.append(event)
        return event

    async def turn(self) -> list[pb.ConverseResponse]:
        """All events up to and with turn_done."""
        events = [await self.read()]
        while not events[-1].HasField("turn_done"):
            events.append(await self.read())
        return events

    async def error(self) -> grpc.aio.AioRpcError:
        """The error in which the stream ends."""
        try:
            while True:
                await self.read()
        except grpc.aio.AioRpcError as error:
            return error

    async def end(self) -> None:
        """Half-closes and expects the stream to end well."""
        await self.call.done_writing()
        with contextlib.suppress(EOFError):
            while True:
                await self.read()
        assert (await self.call.code()).name == "OK"


def kinds(events: list[pb.ConverseResponse]) -> list[str]:
    """The events' names."""
    return [event.WhichOneof("event") or "" for event in events]


def spoken(events: list[pb.ConverseResponse]) -> str:
    """The text of all token events."""
    return "".join(event.token.text for event in events)
