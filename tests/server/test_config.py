"""Settings fail loudly and name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import InvalidRequest
from server.config import Config, Limits, Tenant, Tls, load

TOKEN = "0123456789abcdef"


def _load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "upbeat.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_a_whole_file(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        f"""
        listen = "0.0.0.0:7000"
        grace_s = 3.5
        [tls]
        certificate = "c.pem"
        key = "k.pem"
        [[tenants]]
        name = "acme"
        token = "{TOKEN}"
        [limits]
        streams = 10
        [metrics]
        port = 9000
        [device]
        threads = 1
        """,
    )
    assert (config.listen, config.grace_s, config.limits.streams) == ("0.0.0.0:7000", 3.5, 10)
    assert config.tls == Tls(certificate="c.pem", key="k.pem")
    assert config.tenants == (Tenant(name="acme", token=TOKEN),)
    assert (config.metrics.port, config.device.threads) == (9000, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lissen = '127.0.0.1:1'", "lissen"),
        ("[limits]\nstreems = 1", r"streems.*limits"),
        ("[device]\nthread = 1", r"thread.*device"),
        ("grace_s = 'long'", "grace_s"),
        ("grace_s = nan", "grace_s"),
        ("[limits]\nstreams = 0", r"limits.streams: must be 1 to"),
        ("[metrics]\nport = 70000", r"metrics.port: must be 0 to 65535"),
        ("log_level = 'LOUD'", "log_level"),
        ("listen = 'here'", "listen"),
        ("[[tenants]]\nname = 'a'\ntoken = 'short'", r"tenants.token"),
        ("[[tenants]]\nname = 'a'\ntoken = 'schlüssel-der-küche'", r"tenants.token: printable ASCII"),
        ("[[tenants]]\nname = 'a'\ntoken = ' 0123456789abcdef'", r"tenants.token: printable ASCII"),
        ("[device]\ndevice = 'cuda:x'", r"device.device: .*, not 'cuda:x'"),
        ("[device]\nthreads = 4096", r"device.threads"),
        ("listen = ", "not TOML"),
        (
            f"diagnostics = ['acmé']\n[[tenants]]\nname = 'acme'\ntoken = '{TOKEN}'",
            "diagnostics: no tenant is called 'acmé'",
        ),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        _load(tmp_path, text)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "example.org:1"])
def test_a_public_address_needs_a_guard(listen: str) -> None:
    with pytest.raises(InvalidRequest, match="can be reached from outside"):
        Config(listen=listen)
    with pytest.raises(InvalidRequest, match="can be reached from outside"):
        Config(listen=listen, tenants=(Tenant(name="a", token=TOKEN),))
    assert Config(listen=listen, insecure=True).insecure
    assert Config(listen=listen, tls=Tls(certificate="c", key="k", client_ca="a")).tls
    assert Config(
        listen=listen, tls=Tls(certificate="c", key="k"), tenants=(Tenant(name="a", token=TOKEN),)
    ).tls


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:1", "[::1]:1", "unix:/tmp/x"])
def test_a_local_address_does_not(listen: str) -> None:
    assert Config(listen=listen).listen == listen


def test_defaults_are_valid() -> None:
    assert Config().limits == Limits()
