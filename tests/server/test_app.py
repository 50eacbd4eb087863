"""The whole process: says when it is ready, obeys signals, refuses what cannot be."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc

from pipelines.errors import InvalidRequest, ModelBroken
from server.app import RunningServer
from server.config import Config
from tests.fakes import FakeLink

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((ROOT, os.path.join(ROOT, "protos")))}


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.server.served"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        yield running
        running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_a_signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("listening on 127.0.0.1:")
    with grpc.insecure_channel(line.split()[-1]) as channel:
        stub = gateway_pb2_grpc.TextServiceStub(channel)
        assert list(stub.GenerateText(pb.GenerateTextRequest(prompt="Hi")))
    process.send_signal(number)
    assert process.wait(20) == 0


def test_a_second_signal_does_not_wait(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    with grpc.insecure_channel(address) as channel:
        call = gateway_pb2_grpc.ConversationServiceStub(channel).Converse(
            iter([pb.ConverseRequest(start=pb.ConverseStart())])
        )
        assert next(iter(call)).HasField("ready")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


async def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = RunningServer(Config(listen=f"127.0.0.1:{taken.getsockname()[1]}"), FakeLink())
        with pytest.raises(InvalidRequest, match=r"listen: cannot listen on 127.0.0.1:\d+: it is taken"):
            await server.start()
        await server.stop()


def test_a_metrics_port_that_is_taken_is_told_before_models_are_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = ("--listen", "127.0.0.1:0", "--metrics-port", str(taken.getsockname()[1]))
        ended = subprocess.run(
            [sys.executable, "-m", "server", *options],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 1
    assert "error: metrics.port: " in ended.stderr
    assert "loading" not in ended.stderr


async def test_models_that_cannot_be_loaded() -> None:
    class Broken(FakeLink):
        async def start(self) -> None:
            raise ModelBroken("models/text/model.safetensors: missing tensor")

    server = RunningServer(Config(listen="127.0.0.1:0"), Broken())
    with pytest.raises(ModelBroken, match="missing tensor"):
        await server.start()
    await server.stop()
