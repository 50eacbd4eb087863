"""Reflection in both versions."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

from server.app import NEEDS


async def _asked(
    channel: grpc.aio.Channel, version: str, request: pb.ServerReflectionRequest
) -> pb.ServerReflectionResponse:
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )()
    await call.write(request)
    await call.done_writing()
    response = await call.read()
    assert isinstance(response, pb.ServerReflectionResponse)
    return response


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_lists_all_services(channel: grpc.aio.Channel, version: str) -> None:
    response = await _asked(channel, version, pb.ServerReflectionRequest(list_services=""))
    names = {service.name for service in response.list_services_response.service}
    assert names == {
        *NEEDS,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize(
    "symbol",
    [*NEEDS, "upbeat.v1.ConverseRequest", "grpc.reflection.v1.ServerReflection", "grpc.health.v1.Health"],
)
async def test_describes_each_symbol(channel: grpc.aio.Channel, version: str, symbol: str) -> None:
    response = await _asked(channel, version, pb.ServerReflectionRequest(file_containing_symbol=symbol))
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in response.file_descriptor_response.file_descriptor_proto
    ]
    assert any(file.package == symbol.rpartition(".")[0] for file in files)
