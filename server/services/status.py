"""The one table from the error tree to gRPC, as google.rpc.Status with its details."""

from __future__ import annotations

import re

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from pipelines.errors import (
    DeadlinePassed,
    DeviceLost,
    Draining,
    Exhausted,
    Forbidden,
    InvalidRequest,
    ModelBroken,
    NotFound,
    Unauthenticated,
    Unsupported,
    UpbeatError,
    WrongState,
)

DOMAIN = "upbeat"
DETAILS_KEY = "grpc-status-details-bin"
MAX_MESSAGE_CHARS = 300
"""Clients take 8 KiB of trailing metadata; the message is in it three times, at 3 to 12 bytes a character."""

TABLE: dict[type[UpbeatError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    DeviceLost: grpc.StatusCode.UNAVAILABLE,
    Draining: grpc.StatusCode.UNAVAILABLE,
    ModelBroken: grpc.StatusCode.INTERNAL,
}


def code_of(error: UpbeatError) -> grpc.StatusCode:
    """INTERNAL for what is not in the table."""
    return TABLE.get(type(error), grpc.StatusCode.INTERNAL)


def message_of(error: UpbeatError) -> str:
    """Cut where it repeats too much of what the client sent."""
    whole = error.message
    return whole if len(whole) <= MAX_MESSAGE_CHARS else whole[: MAX_MESSAGE_CHARS - 1] + "…"


def status_of(error: UpbeatError) -> status_pb2.Status:
    """With ErrorInfo always, BadRequest where a field is at fault, RetryInfo where trying again helps."""
    name = type(error).__name__
    reason = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    details: list[Message] = [info]
    if error.field:
        info.metadata["field"] = error.field
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message_of(error)
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s > 0:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(1000 * error.retry_after_s))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    number: int = code_of(error).value[0]
    return status_pb2.Status(
        code=number, message=message_of(error), details=[_packed(each) for each in details]
    )


def trailing(error: UpbeatError) -> tuple[tuple[str, bytes], ...]:
    """The status as trailing metadata."""
    return ((DETAILS_KEY, status_of(error).SerializeToString()),)


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
