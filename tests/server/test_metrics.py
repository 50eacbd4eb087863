"""What Prometheus is told."""

from __future__ import annotations

import urllib.request

import grpc
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import types_pb2

from pipelines.messages import Stats
from server.app import RunningServer
from server.metrics import Metrics
from tests.converse import Client
from tests.fakes import FakeLink

SERIES = (
    "time_to_first_token_seconds_count",
    "time_to_first_audio_seconds_count",
    "time_to_first_preview_seconds_count",
    "image_seconds_count",
    "turn_seconds_count",
)


def _value(running: RunningServer, name: str, **labels: str) -> float:
    return running.gateway.metrics.registry.get_sample_value(f"upbeat_{name}", labels) or 0.0


async def test_a_turn_is_measured(running: RunningServer, channel: grpc.aio.Channel, link: FakeLink) -> None:
    before = {name: _value(running, name) for name in SERIES}
    turns = _value(running, "turns_total", reason="STOP")
    preempted = _value(running, "preemptions_total")
    client = Client(channel)
    await client.start(types_pb2.MODALITY_SPEECH, types_pb2.MODALITY_IMAGE)
    await client.commit("Hi")
    await client.turn()
    assert _value(running, "streams") == 1
    await client.end()
    assert {name: _value(running, name) - before[name] for name in SERIES} == dict.fromkeys(SERIES, 1)
    assert _value(running, "turns_total", reason="STOP") - turns == 1
    assert _value(running, "preemptions_total") - preempted == 3
    assert _value(running, "queue_seconds_count", job="image") > 0
    assert _value(running, "inter_chunk_gap_seconds_count", kind="audio") > 0
    assert _value(running, "device_up") == 1
    assert _value(running, "longest_gap_ms") == 1.5


async def test_an_interruption_is_measured(
    running: RunningServer, channel: grpc.aio.Channel, link: FakeLink
) -> None:
    before = _value(running, "barge_in_stop_seconds_count")
    link.reset(None)
    client = Client(channel)
    await client.start()
    await client.commit("Hi")
    await client.say(interrupt=pb.InterruptTurn())
    await client.turn()
    await client.end()
    assert _value(running, "barge_in_stop_seconds_count") - before == 1


def test_errors_of_predictions_have_a_series_each() -> None:
    metrics = Metrics()
    stats = Stats(0, 0, 0, 0, 0, 0.0, 0.0, cost_error={"my/text/decode": 0.25, "voice/audio": 0.1})
    metrics.watch(lambda: 0, lambda: True, lambda: stats)
    for pipeline, kind, error in (("my/text", "decode", 0.25), ("voice", "audio", 0.1)):
        labels = {"pipeline": pipeline, "kind": kind}
        assert metrics.registry.get_sample_value("upbeat_cost_error", labels) == error


def test_prometheus_reads_it() -> None:
    server, thread = Metrics().serve("127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as reply:
            assert b"upbeat_time_to_first_token_seconds" in reply.read()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
