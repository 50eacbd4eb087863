"""Settings of the server: one TOML file, read and checked once. Unknown keys are errors that name the key."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path

import msgspec

from pipelines.errors import InvalidRequest
from server.executor.settings import DeviceSettings, between


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables in the file."""


class Tenant(Section, frozen=True):
    """Whoever brings `token` as a bearer token is the tenant `name`."""

    name: str
    token: str

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidRequest("tenants.name", "must not be empty")
        if len(self.token) < 16:
            raise InvalidRequest("tenants.token", f"must have at least 16 characters (tenant {self.name!r})")
        if not (self.token.isascii() and self.token.isprintable()) or self.token != self.token.strip():
            words = "printable ASCII without spaces at its ends, or no header can carry it"
            raise InvalidRequest("tenants.token", f"{words} (tenant {self.name!r})")


class Tls(Section, frozen=True):
    """PEM files. With client_ca only clients with a certificate of that authority are let in; the
    certificate's common name is the tenant."""

    certificate: str
    key: str
    client_ca: str = ""


class Limits(Section, frozen=True):
    """What is let in at once, and how large.

    jobs_per_pipeline: or as many as the device admits, where that is less; tenants share them (`shares`).
    start_timeout_s: a stream that has said nothing by then is dropped. idle_timeout_s: a conversation in
    which neither side has said anything for so long, while no turn runs or one waits for its listener, is
    ended; so is a stream of text to be spoken or of sound to be understood, while it may go on, and any
    stream whose client does not read an event for so long. Reports of playback and empty pieces say nothing.
    replay_mib: memory for events that a resumed stream may ask for, over all sessions. ahead_tokens_per_s:
    what may be generated ahead of commits, for a session and for a tenant; it shrinks with the committed jobs
    of the model, to nothing at ahead_until_jobs (0: never anything).
    """

    streams: int = 4096
    streams_per_tenant: int = 2048
    jobs_per_pipeline: int = 256
    start_timeout_s: float = 10.0
    idle_timeout_s: float = 900.0
    message_bytes: int = 4 << 20
    prompt_chars: int = 200_000
    audio_s: float = 600.0
    replay_mib: int = 256
    ahead_tokens_per_s: float = 512.0
    ahead_tokens_per_s_per_tenant: float = 8192.0
    ahead_until_jobs: int = 8

    def __post_init__(self) -> None:
        between("limits.streams", self.streams, 1, 1_000_000)
        between("limits.streams_per_tenant", self.streams_per_tenant, 1, 1_000_000)
        between("limits.jobs_per_pipeline", self.jobs_per_pipeline, 1, 65_536)
        between("limits.start_timeout_s", self.start_timeout_s, 0.01, 3600)
        between("limits.idle_timeout_s", self.idle_timeout_s, 0.01, 86_400)
        between("limits.message_bytes", self.message_bytes, 1 << 16, 1 << 30)
        between("limits.prompt_chars", self.prompt_chars, 1, 10_000_000)
        between("limits.audio_s", self.audio_s, 1, 86_400)
        between("limits.replay_mib", self.replay_mib, 0, 1 << 20)
        between("limits.ahead_tokens_per_s", self.ahead_tokens_per_s, 0, 1e9)
        between("limits.ahead_tokens_per_s_per_tenant", self.ahead_tokens_per_s_per_tenant, 0, 1e9)
        between("limits.ahead_until_jobs", self.ahead_until_jobs, 0, 65_536)


class Metrics(Section, frozen=True):
    """Prometheus; port 0 for none."""

    host: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        between("metrics.port", self.port, 0, 65_535)


class Config(Section, frozen=True):
    """listen: "HOST:PORT" or "unix:PATH". insecure: allows a public address without TLS and tenants.

    grace_s: how long running turns may go on after SIGTERM. log_level: DEBUG, INFO, WARNING or ERROR.
    diagnostics: the tenants that may trace the device; none named: whoever calls from this machine.
    """

    listen: str = "127.0.0.1:50051"
    insecure: bool = False
    grace_s: float = 20.0
    log_level: str = "INFO"
    tenants: tuple[Tenant, ...] = ()
    diagnostics: tuple[str, ...] = ()
    tls: Tls | None = None
    limits: Limits = Limits()
    metrics: Metrics = Metrics()
    device: DeviceSettings = DeviceSettings()

    def __post_init__(self) -> None:
        between("grace_s", self.grace_s, 0, 3600)
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise InvalidRequest("log_level", f"DEBUG, INFO, WARNING or ERROR, not {self.log_level!r}")
        if len({tenant.token for tenant in self.tenants}) < len(self.tenants):
            raise InvalidRequest("tenants.token", "two tenants have the same token")
        if self.tenants and not (self.tls is not None and self.tls.client_ca):
            strangers = set(self.diagnostics) - {tenant.name for tenant in self.tenants}
            if strangers:
                raise InvalidRequest("diagnostics", f"no tenant is called {min(strangers)!r}")
        if not self.insecure and not is_local(self.listen):
            self._check_public()

    def _check_public(self) -> None:
        guarded = bool(self.tenants) or (self.tls is not None and bool(self.tls.client_ca))
        if self.tls is None or not guarded:
            raise InvalidRequest(
                "listen",
                f"{self.listen} can be reached from outside: set [tls] and [[tenants]] (or tls.client_ca), "
                "listen on 127.0.0.1, or say insecure = true",
            )


def load(path: Path) -> Config:
    """The settings in a TOML file. Raises: InvalidRequest naming the key, OSError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(path), f"not TOML: {error}") from error
    try:
        return msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(path), str(error)) from error


def is_local(listen: str) -> bool:
    """Whether only this machine can connect. Raises: InvalidRequest."""
    if listen.startswith("unix:"):
        return True
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise InvalidRequest("listen", f'"HOST:PORT" or "unix:PATH", not {listen!r}')
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
