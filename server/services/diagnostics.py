"""DiagnosticsService: what the device does, on request."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from urllib.parse import unquote

from upbeat.v1 import gateway_pb2, gateway_pb2_grpc

from pipelines.errors import Exhausted, Forbidden, InvalidRequest
from server import streams
from server.auth import TENANT
from server.gateway import Gateway

LIMITS_S = (0.1, 60.0)
PART_BYTES = 1 << 20


class DiagnosticsService(gateway_pb2_grpc.DiagnosticsServiceServicer):
    """A trace names jobs, classes and kinds of slices, but nothing of what was said; still it tells what
    others do, so not everybody may ask."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._until_s = 0.0

    async def TraceDevice(
        self, request: gateway_pb2.TraceDeviceRequest, context: streams.Context
    ) -> AsyncIterator[gateway_pb2.TraceDeviceResponse]:
        self._check_caller(context.peer())
        low, high = LIMITS_S
        if not low <= request.seconds <= high:
            raise InvalidRequest("seconds", f"{low:g} to {high:g}, not {request.seconds:g}")
        self._take(request.seconds)
        json = await self._gateway.link.trace(request.seconds)
        for start in range(0, len(json), PART_BYTES):
            yield gateway_pb2.TraceDeviceResponse(json=json[start : start + PART_BYTES])

    def _check_caller(self, peer: str) -> None:
        """Raises: Forbidden."""
        named = self._gateway.config.diagnostics
        if not (TENANT.get() in named if named else is_here(peer)):
            raise Forbidden("traces are for callers on this machine, or tenants named in `diagnostics`")

    def _take(self, seconds: float) -> None:
        """Raises: Exhausted, while another trace is being taken."""
        now_s = self._gateway.clock.now()
        if now_s < self._until_s:
            raise Exhausted("another trace is being taken", retry_after_s=self._until_s - now_s)
        self._until_s = now_s + seconds


def is_here(peer: str) -> bool:
    """Whether a peer as gRPC names it ("ipv4:1.2.3.4:5", "ipv6:%5B::1%5D:5", "unix:...") is this machine."""
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    try:
        return ipaddress.ip_address(unquote(rest).rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        return False
