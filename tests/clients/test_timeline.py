"""A trace as one line and as a picture."""

from __future__ import annotations

import json
from typing import Any
from xml.dom import minidom

from clients.timeline import stretches, summary, svg


def box(track: int, start_ms: float, length_ms: float, outcome: str, cat: str = "STANDARD") -> dict[str, Any]:
    common = {"ph": "X", "pid": 1, "tid": track, "cat": cat, "name": "denoise x1"}
    return {**common, "ts": start_ms * 1000, "dur": length_ms * 1000, "args": {"outcome": outcome}}


def trace() -> bytes:
    names = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": track, "args": {"name": name}}
        for track, name in ((1, "image & co"), (2, "voice"))
    ]
    boxes = [
        box(1, 10, 20, "suspend"),
        box(2, 30, 5, "commit", "REALTIME"),
        box(1, 35, 15, "commit"),
        box(1, 900, 1, "commit"),
    ]
    mark = {"ph": "i", "pid": 1, "tid": 1, "cat": "STANDARD", "name": "preempted", "ts": 30_000, "s": "t"}
    return json.dumps({"traceEvents": [*names, *boxes, mark]}).encode()


def test_a_line() -> None:
    assert len(stretches(trace())) == 4
    assert summary(trace()) == "4 stretches on the device, 41 ms, 1 preempted"


def test_a_picture_shows_each_stretch_and_where_it_was_cut() -> None:
    drawing = svg(trace(), 0.0, 100.0)
    assert minidom.parseString(drawing).documentElement is not None
    assert drawing.count("<title>denoise x1") == 3
    assert "image &amp; co" in drawing and ">voice<" in drawing
    assert drawing.count('stroke="black"') == 2, "one in the legend, one where the image was cut"


def test_a_picture_of_nothing_is_a_picture() -> None:
    assert minidom.parseString(svg(b'{"traceEvents": []}', 0.0, 50.0)).documentElement is not None
