"""grpc.health.v1 with one entry a service and a watch that writes without holding anything.

The library's servicer keeps its lock while it writes, so that one watcher who does not read stops every
change of status; hence this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pipelines.errors import NotFound

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVICE = "grpc.health.v1.Health"


class Health(health_pb2_grpc.HealthServicer):
    """Statuses by service; "" is the server. Owner: the event loop."""

    def __init__(self, services: Iterable[str]) -> None:
        self._serving = dict.fromkeys(("", *services), False)
        self._watchers: set[asyncio.Event] = set()
        self._closed = False

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    def set(self, service: str, serving: bool) -> None:
        """Tells the watchers."""
        self._serving[service] = serving
        self._wake()

    def close(self) -> None:
        """Ends all watches, after their last news."""
        self._closed = True
        self._wake()

    async def Check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._serving:
            raise NotFound(f"no service {request.service!r}", field="service")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
    ) -> None:
        """The status now and whenever it changes, until the client leaves."""
        news = asyncio.Event()
        self._watchers.add(news)
        told: int | None = None
        try:
            while True:
                news.clear()
                status = self._status(request.service)
                if status != told:
                    told = status
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                elif self._closed:
                    return
                else:
                    await news.wait()
        finally:
            self._watchers.discard(news)

    def _status(self, service: str) -> int:
        if service not in self._serving:
            return SERVICE_UNKNOWN
        return SERVING if self._serving[service] else NOT_SERVING

    def _wake(self) -> None:
        for news in self._watchers:
            news.set()
