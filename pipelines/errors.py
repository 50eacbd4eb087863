"""Every error a client can cause or meet. One table (server/services/status.py) maps it to gRPC.

UpbeatError
+-- InvalidRequest       bad input; names the field and the limit          INVALID_ARGUMENT
+-- NotFound             no such model, voice, turn                         NOT_FOUND
+-- WrongState           the call does not fit the stream's state           FAILED_PRECONDITION
+-- Unsupported          understood, but this server or model cannot        UNIMPLEMENTED
+-- Exhausted            no room now; says when to come back                RESOURCE_EXHAUSTED
+-- DeadlinePassed       the client's deadline went by                      DEADLINE_EXCEEDED
+-- Unauthenticated      no valid bearer token                              UNAUTHENTICATED
+-- Forbidden            known, but not allowed to ask this                 PERMISSION_DENIED
+-- DeviceLost           the device process died; it is being restarted     UNAVAILABLE
+-- Draining             this server is shutting down                       UNAVAILABLE
+-- ModelBroken          a folder that cannot be loaded, or NaN from it     INTERNAL
"""

from __future__ import annotations


class UpbeatError(Exception):
    """Base of all errors with a meaning for the client.

    `field` is the request's field in wire notation (`image.width`), "" where none is at fault;
    `retry_after_s` is 0 where trying again is pointless.
    """

    def __init__(self, message: str, *, field: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequest(UpbeatError):
    """Bad input: `field` names it, the message names the limit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", field=field)


class NotFound(UpbeatError):
    """No such model, voice or turn."""


class WrongState(UpbeatError):
    """The call does not fit the state: a revision after commit, a second start."""


class Unsupported(UpbeatError):
    """Understood, but not offered by this model or server."""


class Exhausted(UpbeatError):
    """No room now. `retry_after_s` is an honest estimate of when there will be."""


class DeadlinePassed(UpbeatError):
    """The client's deadline went by before the work was done."""


class Unauthenticated(UpbeatError):
    """The call carries no token this server knows."""


class Forbidden(UpbeatError):
    """The caller is known and may not ask this."""


class DeviceLost(UpbeatError):
    """The device process died; it is restarted by itself."""


class Draining(UpbeatError):
    """The server is shutting down and begins nothing new; another one may answer."""


class ModelBroken(UpbeatError):
    """A model folder that cannot be loaded (names the file) or a model that computes NaN."""


KINDS: dict[str, type[UpbeatError]] = {
    cls.__name__: cls
    for cls in (
        InvalidRequest,
        NotFound,
        WrongState,
        Unsupported,
        Exhausted,
        DeadlinePassed,
        Unauthenticated,
        Forbidden,
        DeviceLost,
        Draining,
        ModelBroken,
    )
}


def rebuild(kind: str, message: str, field: str, retry_after_s: float) -> UpbeatError:
    """The error that travelled over the link as these four values."""
    cls = KINDS.get(kind, ModelBroken)
    error = cls.__new__(cls)
    UpbeatError.__init__(error, message, field=field, retry_after_s=retry_after_s)
    return error
