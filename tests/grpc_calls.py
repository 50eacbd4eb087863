"""Short words for what tests do with gRPC calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True, slots=True)
class Details:
    """What an error's details say."""

    reason: str
    field: str
    retry_after_s: float


def parse(status: status_pb2.Status) -> Details:
    """Of a google.rpc.Status."""
    reason, field, retry = "", "", 0.0
    for packed in status.details:
        info, bad, again = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            field = bad.field_violations[0].field
        elif packed.Unpack(again):
            retry = again.retry_delay.ToTimedelta().total_seconds()
    return Details(reason, field, retry)


def details(error: grpc.aio.AioRpcError) -> Details:
    """Of a failed call."""
    metadata = dict(error.trailing_metadata())
    value = metadata["grpc-status-details-bin"]
    assert isinstance(value, bytes)
    return parse(status_pb2.Status.FromString(value))


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error in which a call that streams responses ends."""
    try:
        async for _ in call:
            continue
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call ended well")
