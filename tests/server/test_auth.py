"""Bearer tokens make tenants."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc

from pipelines.messages import TextRequest
from server.config import Config, Tenant
from tests.fakes import Device, FakeLink
from tests.grpc_calls import details, refused
from tests.serving import serving

CONFIG = Config(
    listen="127.0.0.1:0",
    tenants=(Tenant(name="acme", token="a" * 16), Tenant(name="globex", token="b" * 16)),
)
HI = pb.GenerateTextRequest(prompt="Hi")


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def test_tokens_make_tenants() -> None:
    link = FakeLink(script=Device())
    async with serving(CONFIG, link) as (_, channel):
        stub = gateway_pb2_grpc.TextServiceStub(channel)
        for token in ("a" * 16, "b" * 16):
            assert [event async for event in stub.GenerateText(HI, metadata=_bearer(token))]
        assert [submit.tenant for submit in link.submitted(TextRequest)] == ["acme", "globex"]


@pytest.mark.parametrize("metadata", [(), _bearer("c" * 16), (("authorization", "a" * 16),), _bearer("")])
async def test_strangers_are_refused_everywhere_but_at_health(metadata: tuple[tuple[str, str], ...]) -> None:
    async with serving(CONFIG, FakeLink()) as (_, channel):
        error = await refused(gateway_pb2_grpc.TextServiceStub(channel).GenerateText(HI, metadata=metadata))
        assert (error.code().name, details(error).reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await gateway_pb2_grpc.ModelServiceStub(channel).ListModels(
                pb.ListModelsRequest(), metadata=metadata
            )
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert await health.Check(health_pb2.HealthCheckRequest(), metadata=metadata)
