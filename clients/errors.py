"""The one error of the client library, read from the server's google.rpc.Status."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"
T = TypeVar("T")


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


def one_of(field: str, name: str, known: Iterable[str]) -> str:
    """The name, where it is known. Raises: ClientError."""
    if name not in (names := tuple(known)):
        raise ClientError(
            "INVALID_ARGUMENT", f"{field}: one of {', '.join(names)}, not {name!r}", field=field
        )
    return name


def count(field: str, value: int) -> int:
    """A number that the wire has room for. Raises: ClientError."""
    if not 0 <= value < 1 << 32:
        raise ClientError("INVALID_ARGUMENT", f"{field}: 0 to {(1 << 32) - 1}, not {value}", field=field)
    return value


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
    return _from_parts(error.code(), error.details(), error.trailing_metadata())


class Ending:
    """What the server said when it ended `call`, a streaming call of grpc.aio that has just been made.

    grpc.aio puts INTERNAL in the place of the server's status where a write fails because the call has ended
    (grpc/grpc#36066); the first status is the true one. `error`: None while the call goes on or where it
    ended well.
    """

    def __init__(self, call: Any) -> None:
        self.well = False
        self.error: ClientError | None = None
        call.add_done_callback(self._ended)

    def _ended(self, call: Any) -> None:
        if self.well or self.error is not None:
            return
        code: grpc.StatusCode = _now(call.code())
        if code is grpc.StatusCode.OK:
            self.well = True
        else:
            self.error = _from_parts(code, _now(call.details()), _now(call.trailing_metadata()))


@contextmanager
def translated(ending: Ending | None = None) -> Iterator[None]:
    """Errors of grpc leave as ClientError: what the server said, where it has spoken. A call that the server
    has ended well has no error."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if ending is None:
            raise from_rpc(error) from None
        if not ending.well:
            raise ending.error or from_rpc(error) from None


def _from_parts(code: grpc.StatusCode, details: str | None, metadata: Any) -> ClientError:
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_bytes(value)
    return ClientError(code.name, details or "the call failed")


def _now(ready: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing left to wait for."""
    try:
        ready.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the call has ended, so its status is known")
