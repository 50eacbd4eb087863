"""The server: builds everything from the settings, serves, drains, stops."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc
from upbeat.v1 import gateway_pb2_grpc

from pipelines.errors import InvalidRequest
from server import gateway as gateways
from server.clock import Clock
from server.config import Config
from server.executor.link import Link
from server.gateway import Gateway
from server.health import SERVICE as HEALTH
from server.health import Health
from server.interceptors import CallInterceptor
from server.logs import log
from server.reflection import add_reflection
from server.services.conversation import ConversationService
from server.services.diagnostics import DiagnosticsService
from server.services.image import ImageService
from server.services.model import ModelService
from server.services.speech import SpeechService
from server.services.text import TextService

NEEDS = {
    "upbeat.v1.ConversationService": "",
    "upbeat.v1.TextService": "text",
    "upbeat.v1.SpeechService": "speech",
    "upbeat.v1.ImageService": "image",
    "upbeat.v1.ModelService": "",
    "upbeat.v1.DiagnosticsService": "",
}
LAST_WORDS_S = 1.0
PING_INTERVAL_MS = 9_000
"""Keepalive pings are welcome from every 10 s on; a timer may run a little early."""


class RunningServer:
    """One gateway on one port. `start` binds at once and serves when the models are loaded."""

    def __init__(self, config: Config, link: Link, clock: Clock | None = None) -> None:
        self.gateway: Gateway = gateways.build(config, link, clock)
        self.health = Health(NEEDS)
        self.port = 0
        self._calls = CallInterceptor(self.gateway)
        self._server = grpc.aio.server(
            interceptors=(self._calls,), options=_options(config), maximum_concurrent_rpcs=None
        )
        self._stopped = False
        self._told_up: bool | None = None

    async def start(self) -> None:
        """Raises: InvalidRequest if the address cannot be had; what the link's `start` raises."""
        config = self.gateway.config
        self._add_services()
        try:
            self.port = (
                self._server.add_secure_port(config.listen, _credentials(config))
                if config.tls
                else self._server.add_insecure_port(config.listen)
            )
        except RuntimeError as error:
            words = f"cannot listen on {config.listen}: it is taken, forbidden, or no address of this machine"
            raise InvalidRequest("listen", words) from error
        await self._server.start()
        self.gateway.link.on_change(self._device_changed)
        await self.gateway.link.start()
        self._device_changed(self.gateway.link.up)

    async def drain(self) -> None:
        """NOT_SERVING first, nothing new; returns when the running turns have finished, or after grace_s."""
        for service in ("", *NEEDS):
            self.health.set(service, False)
        self.gateway.dispatcher.draining = True
        self.gateway.sessions.wake()
        log("draining", {"running": len(self._calls.running)})
        if self._calls.running:
            await asyncio.wait(set(self._calls.running), timeout=self.gateway.config.grace_s)

    async def stop(self) -> None:
        """At once; what still runs is cancelled."""
        if self._stopped:
            return
        self._stopped = True
        self.health.close()
        await self._server.stop(0 if self._calls.running else LAST_WORDS_S)
        if self._calls.running:
            await asyncio.wait(set(self._calls.running), timeout=LAST_WORDS_S)
        await self.gateway.link.stop()
        log("stopped", {})

    def _device_changed(self, up: bool) -> None:
        loaded = {model.modality for model in self.gateway.link.models}
        serving = up and not self.gateway.dispatcher.draining
        self.health.set("", serving)
        for service, modality in NEEDS.items():
            self.health.set(service, serving and (not modality or modality in loaded))
        if up != self._told_up:
            self._told_up = up
            log("device", {"up": up})

    def _add_services(self) -> None:
        gateway, server = self.gateway, self._server
        gateway_pb2_grpc.add_ConversationServiceServicer_to_server(ConversationService(gateway), server)
        gateway_pb2_grpc.add_TextServiceServicer_to_server(TextService(gateway), server)
        gateway_pb2_grpc.add_SpeechServiceServicer_to_server(SpeechService(gateway), server)
        gateway_pb2_grpc.add_ImageServiceServicer_to_server(ImageService(gateway), server)
        gateway_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(gateway), server)
        gateway_pb2_grpc.add_DiagnosticsServiceServicer_to_server(DiagnosticsService(gateway), server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        add_reflection((*NEEDS, HEALTH), server)


async def serve(config: Config, link: Link) -> None:
    """Runs until SIGTERM or SIGINT, then drains; a second signal stops at once."""
    server = RunningServer(config, link)
    wanted = asyncio.Event()
    hurried = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (hurried if wanted.is_set() else wanted).set())
    try:
        _metrics(server, config)
        await _until(asyncio.create_task(server.start()), wanted)
        if not wanted.is_set():
            print(f"listening on {_address(config, server.port)}", flush=True)
            await wanted.wait()
            await _until(asyncio.create_task(server.drain()), hurried)
    finally:
        await server.stop()


async def _until(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Waits for the task, but no longer than for the event, which cancels it."""
    waiter = asyncio.create_task(event.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if task.done():
        task.result()
    else:
        task.cancel()
        await asyncio.wait({task})


def _metrics(server: RunningServer, config: Config) -> None:
    if config.metrics.port:
        try:
            server.gateway.metrics.serve(config.metrics.host, config.metrics.port)
        except OSError as error:
            raise InvalidRequest("metrics.port", f"{config.metrics.port}: {error}") from error


def _address(config: Config, port: int) -> str:
    if config.listen.startswith("unix:"):
        return config.listen
    return f"{config.listen.rpartition(':')[0]}:{port}"


def _options(config: Config) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.limits.message_bytes),
        ("grpc.so_reuseport", 0),
        # The transport cuts off whoever waits behind so many; admission says why and when to come back.
        ("grpc.server.max_pending_requests", config.limits.streams),
        ("grpc.server.max_pending_requests_hard_limit", 2 * config.limits.streams),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.write_buffer_size", 64 << 10),
    ]


def _credentials(config: Config) -> grpc.ServerCredentials:
    """Raises: InvalidRequest naming the file that is not what it should be."""
    assert config.tls is not None, "asked for only with [tls]"
    certificate = _pem("tls.certificate", config.tls.certificate)
    key = _pem("tls.key", config.tls.key)
    authority = _pem("tls.client_ca", config.tls.client_ca) if config.tls.client_ca else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls.certificate, config.tls.key, password="")
    except ssl.SSLError as error:
        words = f"{config.tls.key} is no PEM key without a password that fits {config.tls.certificate}"
        raise InvalidRequest("tls.key", words) from error
    try:
        if authority is not None:
            context.load_verify_locations(cadata=authority.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise InvalidRequest("tls.client_ca", f"{config.tls.client_ca} holds no PEM certificate") from error
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authority, require_client_auth=authority is not None
    )


def _pem(field: str, path: str) -> bytes:
    """Raises: InvalidRequest."""
    if not path:
        raise InvalidRequest(field, "must name a PEM file")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(field, f"{path}: {error.strerror}") from error
