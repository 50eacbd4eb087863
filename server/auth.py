"""Who calls: the tenant of a bearer token or a client certificate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar

from pipelines.errors import Unauthenticated
from server.config import Config

LOCAL = "local"
EXEMPT = ("/grpc.health.v1.Health/", "/grpc.reflection.")
TENANT: ContextVar[str] = ContextVar("tenant", default=LOCAL)


class Authenticator:
    """Knows tokens by their digests, so that comparing them leaks nothing about them."""

    def __init__(self, config: Config) -> None:
        self._tenants = {_digest(tenant.token): tenant.name for tenant in config.tenants}
        self._certificates = config.tls is not None and bool(config.tls.client_ca)

    def tenant(
        self,
        method: str,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        peer: Mapping[str, Iterable[bytes]],
    ) -> str:
        """The caller's tenant. Health and reflection are open to all. Raises: Unauthenticated."""
        if method.startswith(EXEMPT) or not (self._tenants or self._certificates):
            return LOCAL
        names = tuple(peer.get("x509_common_name", ()))
        if self._certificates and names:
            return names[0].decode()
        for key, value in metadata or ():
            if key == "authorization" and isinstance(value, str):
                scheme, _, token = value.partition(" ")
                tenant = self._tenants.get(_digest(token.strip()))
                if scheme.lower() == "bearer" and tenant is not None:
                    return tenant
        raise Unauthenticated("this server wants 'authorization: Bearer TOKEN' with a token it knows")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
