"""A client in another language and another process, which knows nothing but protos/."""

from __future__ import annotations

from pathlib import Path

from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types

from tests.clients.node import run_node
from tests.clients.scripted_gateway import Script


async def test_the_wire_alone_is_enough(node_client: Path, target: str, script: Script) -> None:
    token = types.TokenEvent(text="A red boat.", tokens=4)
    done = types.DoneEvent(finish_reason=types.FINISH_REASON_STOP)
    script.scripts.append(
        [
            gateway.ConverseResponse(turn_id="t1", sequence=1, token=token),
            gateway.ConverseResponse(turn_id="t1", sequence=2, turn_done=done),
        ]
    )
    code, events, errors = await run_node(node_client, target, "text")
    assert code == 0, errors
    assert [event["event"] for event in events] == ["ready", "token", "turn_done"]
    assert events[1]["token"]["text"] == "A red boat."
    assert [request.WhichOneof("action") for request in script.heard[0]] == [
        "start",
        "append",
        "revise",
        "commit",
    ]
