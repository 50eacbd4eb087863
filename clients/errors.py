"""The one error of the client library, read from the server's google.rpc.Status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"


class ClientError(Exception):
    """What the server, or the way to it, said.

    code: name of the gRPC status ("INVALID_ARGUMENT"). message: for people. field: the request's field at
    fault in wire notation ("image.width"), "" where none is. reason: the server's name for the error, "" if
    the server did not speak (a lost connection). retry_after_s: 0 where trying again is pointless.
    """

    def __init__(
        self, code: str, message: str, *, field: str = "", reason: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def connection_lost(self) -> bool:
        """Whether no server answered, as opposed to a server that said it cannot."""
        return self.code == "UNAVAILABLE" and not self.reason


def from_status(status: status_pb2.Status) -> ClientError:
    """The error that a google.rpc.Status describes."""
    field, reason, retry_after_s = "", "", 0.0
    for detail in status.details:
        violations, info, retry = (
            error_details_pb2.BadRequest(),
            error_details_pb2.ErrorInfo(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(violations) and violations.field_violations:
            field = violations.field_violations[0].field
        elif detail.Unpack(info):
            reason = info.reason
            field = field or info.metadata.get("field", "")
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    code = code_pb2.Code.Name(status.code)
    return ClientError(code, status.message, field=field, reason=reason, retry_after_s=retry_after_s)


def from_bytes(data: bytes) -> ClientError:
    """The error in a serialized google.rpc.Status, as `DoneEvent.error` carries it."""
    try:
        return from_status(status_pb2.Status.FromString(data))
    except DecodeError:
        return ClientError("INTERNAL", "the server's error could not be read")


def from_rpc(error: grpc.aio.AioRpcError) -> ClientError:
    """The error of a call that failed."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_bytes(value)
    return ClientError(error.code().name, error.details() or "the call failed")


@contextmanager
def translated() -> Iterator[None]:
    """Errors of grpc leave as ClientError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None
