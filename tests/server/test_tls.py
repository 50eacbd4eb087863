"""TLS, and client certificates as tenants. Certificates are made on the spot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc

from pipelines.errors import InvalidRequest
from pipelines.messages import TextRequest
from server.app import RunningServer
from server.config import Config, Tls
from tests.fakes import Device, FakeLink

HI = pb.GenerateTextRequest(prompt="Hi")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca, server (for localhost) and client (named acme), each with .pem and .key."""
    folder = tmp_path_factory.mktemp("tls")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(*new, "-x509", "-subj", "/CN=ca", "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    for name, common_name in (("server", "localhost"), ("client", "acme")):
        _openssl(
            *new, "-x509", "-subj", f"/CN={common_name}", "-addext", "subjectAltName=DNS:localhost",
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
        )  # fmt: skip
    return folder


def _credentials(folder: Path, client: bool) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        (folder / "ca.pem").read_bytes(),
        (folder / "client.key").read_bytes() if client else None,
        (folder / "client.pem").read_bytes() if client else None,
    )


async def test_the_certificates_name_is_the_tenant(folder: Path) -> None:
    link = FakeLink(script=Device())
    tls = Tls(
        certificate=str(folder / "server.pem"),
        key=str(folder / "server.key"),
        client_ca=str(folder / "ca.pem"),
    )
    server = RunningServer(Config(listen="127.0.0.1:0", tls=tls), link)
    await server.start()
    address = f"localhost:{server.port}"
    async with grpc.aio.secure_channel(address, _credentials(folder, client=True)) as channel:
        assert [event async for event in gateway_pb2_grpc.TextServiceStub(channel).GenerateText(HI)]
    assert link.submitted(TextRequest)[0].tenant == "acme"
    async with grpc.aio.secure_channel(address, _credentials(folder, client=False)) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await gateway_pb2_grpc.ModelServiceStub(channel).ListModels(pb.ListModelsRequest())
    await server.stop()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": "gone.key"}, r"tls\.key: gone\.key: No such file"),
        ({"certificate": ""}, r"tls\.certificate: must name a PEM file"),
        ({"key": "client.key"}, r"tls\.key: .*client\.key is no PEM key .* that fits .*server\.pem"),
        ({"key": "server.pem"}, r"tls\.key: .*server\.pem is no PEM key"),
        ({"client_ca": "server.key"}, r"tls\.client_ca: .*server\.key holds no PEM certificate"),
    ],
)
async def test_files_that_are_not_what_they_should_be(
    folder: Path, changed: dict[str, str], message: str
) -> None:
    names = {"certificate": "server.pem", "key": "server.key"} | changed
    paths = {name: str(folder / file) if (folder / file).is_file() else file for name, file in names.items()}
    server = RunningServer(Config(listen="127.0.0.1:0", tls=Tls(**paths)), FakeLink())
    with pytest.raises(InvalidRequest, match=message):
        await server.start()
    await server.stop()
