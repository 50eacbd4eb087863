"""A gateway that records what it hears and answers by script: it speaks the wire, nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_status import rpc_status
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import gateway_pb2_grpc as gateway_grpc
from upbeat.v1 import types_pb2 as types


def status(code: int, message: str, field_name: str = "", retry_s: int = 0) -> status_pb2.Status:
    """What the gateway's error table makes of an error."""
    result = status_pb2.Status(code=code, message=message)
    violation = error_details_pb2.BadRequest.FieldViolation(field=field_name, description=message)
    details: list[Any] = [error_details_pb2.ErrorInfo(reason="SCRIPTED", domain="upbeat")]
    if field_name:
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_s:
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=retry_s)))
    for detail in details:
        result.details.add().Pack(detail)
    return result


@dataclass
class Script:
    """scripts: for each call the responses to send; a Status aborts, "drop" ends as a lost connection does.

    Converse sends its first part at the first request and the rest at `commit` (or behind `resume`).
    """

    scripts: list[list[object]] = field(default_factory=list)
    heard: list[list[Any]] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)


class ScriptedGateway(
    gateway_grpc.ConversationServiceServicer,
    gateway_grpc.TextServiceServicer,
    gateway_grpc.SpeechServiceServicer,
    gateway_grpc.ImageServiceServicer,
    gateway_grpc.ModelServiceServicer,
    gateway_grpc.DiagnosticsServiceServicer,
):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def Converse(self, requests: Any, context: Any) -> AsyncIterator[gateway.ConverseResponse]:  # type: ignore[override]
        steps, heard = self._begin(context)
        async for request in requests:
            heard.append(request)
            kind = request.WhichOneof("action")
            if kind == "start":
                yield gateway.ConverseResponse(
                    session_id="s1", ready=gateway.ConverseReady(audio_sample_rate=16_000)
                )
            if kind in ("commit", "resume"):
                async for response in self._play(steps, context):
                    yield response

    async def GenerateText(self, request: Any, context: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        steps, heard = self._begin(context)
        heard.append(request)
        async for response in self._play(steps, context):
            yield response

    async def GenerateImage(self, request: Any, context: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        steps, heard = self._begin(context)
        heard.append(request)
        async for response in self._play(steps, context):
            yield response

    async def SynthesizeSpeech(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        steps, heard = self._begin(context)
        async for request in requests:
            heard.append(request)
        async for response in self._play(steps, context):
            yield response

    async def TranscribeSpeech(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        steps, heard = self._begin(context)
        async for request in requests:
            heard.append(request)
        async for response in self._play(steps, context):
            yield response

    async def ListModels(self, request: Any, context: Any) -> gateway.ListModelsResponse:  # type: ignore[override]
        self._begin(context)
        model = gateway.Model(name="tiny", modality=types.MODALITY_TEXT, family="llama", serving=True)
        return gateway.ListModelsResponse(models=[model], max_message_bytes=1 << 22)

    async def TraceDevice(self, request: Any, context: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        self._begin(context)
        event = {"ph": "X", "pid": 1, "tid": 1, "cat": "BATCH", "name": "prefill x1", "ts": 0, "dur": 900}
        trace = json.dumps({"traceEvents": [event | {"args": {"outcome": "commit"}}]}).encode()
        for part in (trace[:20], trace[20:]):
            yield gateway.TraceDeviceResponse(json=part)

    def _begin(self, context: Any) -> tuple[list[object], list[Any]]:
        heard: list[Any] = []
        self.script.heard.append(heard)
        self.script.metadata.append(dict(context.invocation_metadata()))
        return (self.script.scripts.pop(0) if self.script.scripts else []), heard

    async def _play(self, steps: list[object], context: Any) -> AsyncIterator[Any]:
        while steps:
            step = steps.pop(0)
            if step == "drop":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            elif isinstance(step, status_pb2.Status):
                await context.abort_with_status(rpc_status.to_status(step))
            else:
                yield step
                if step.WhichOneof("event") == "turn_done":  # type: ignore[attr-defined]
                    return


async def start(script: Script) -> tuple[grpc.aio.Server, str]:
    """A running gateway and its address."""
    server = grpc.aio.server()
    servicer = ScriptedGateway(script)
    gateway_grpc.add_ConversationServiceServicer_to_server(servicer, server)
    gateway_grpc.add_TextServiceServicer_to_server(servicer, server)
    gateway_grpc.add_SpeechServiceServicer_to_server(servicer, server)
    gateway_grpc.add_ImageServiceServicer_to_server(servicer, server)
    gateway_grpc.add_ModelServiceServicer_to_server(servicer, server)
    gateway_grpc.add_DiagnosticsServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"
