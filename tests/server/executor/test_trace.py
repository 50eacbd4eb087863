"""What a trace says of a voice that cuts into an image."""

from __future__ import annotations

import json
from typing import Any

from pipelines.messages import JobClass, StartTrace
from tests.server.executor.bench import Bench
from tests.server.executor.toy import ToyPipeline


def traced() -> list[dict[str, Any]]:
    sent: list[bytes] = []
    pending = [JobClass.REALTIME]

    def give_way() -> bool:
        if pending:
            bench.submit(pending.pop(), pipeline="voice")
        return False

    image, voice = ToyPipeline("image", points=20, cost_ms=100.0), ToyPipeline("voice")
    bench = Bench(image, voice, give_way=give_way)
    bench.executor._send_trace = sent.append
    bench.send(StartTrace(0.2))
    bench.submit(JobClass.STANDARD, what=4, pipeline="image")
    bench.run()
    (trace,) = sent
    events: list[dict[str, Any]] = json.loads(trace)["traceEvents"]
    return events


def test_a_voice_that_cuts_into_an_image_is_seen() -> None:
    events = traced()
    tracks = {event["args"]["name"]: event["tid"] for event in events if event["ph"] == "M"}
    boxes = [event for event in events if event["ph"] == "X"]
    marks = [(event["name"], event["tid"]) for event in events if event["ph"] == "i"]
    assert [(box["tid"], box["args"]["outcome"], box["cat"]) for box in boxes[:3]] == [
        (tracks["image"], "suspend", "STANDARD"),
        (tracks["voice"], "commit", "REALTIME"),
        (tracks["image"], "commit", "STANDARD"),
    ]
    assert marks == [
        ("job 1 arrives", tracks["image"]),
        ("job 2 arrives", tracks["voice"]),
        ("preempted", tracks["image"]),
    ]
    assert all(isinstance(event["ts"], int) and event["ts"] >= 0 for event in events if event["ph"] != "M")
    assert boxes[0]["ts"] + boxes[0]["dur"] <= boxes[1]["ts"]
