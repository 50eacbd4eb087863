"""A device trace as a picture: one row a pipeline, one box a stretch on the device, a mark where it was
preempted. Colours are the classes of service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape

COLOURS = {"REALTIME": "#d1495b", "INTERACTIVE": "#edae49", "STANDARD": "#30638e", "BATCH": "#9aa5b1"}
WIDTH, LEFT, TOP, ROW, BAR = 960, 170, 46, 44, 26
Event = dict[str, Any]


def stretches(trace: bytes) -> list[Event]:
    """The boxes of a trace."""
    return [event for event in json.loads(trace)["traceEvents"] if event["ph"] == "X"]


def summary(trace: bytes) -> str:
    """One line: what the device did."""
    boxes = stretches(trace)
    cut = sum(box["args"]["outcome"] == "suspend" for box in boxes)
    busy_ms = sum(box["dur"] for box in boxes) / 1000
    return f"{len(boxes)} stretches on the device, {busy_ms:.0f} ms, {cut} preempted"


def svg(trace: bytes, start_ms: float, length_ms: float) -> str:
    """The stretches between start_ms and start_ms + length_ms, 960 pixels wide."""
    events = json.loads(trace)["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    shown = [box for box in stretches(trace) if _inside(box, start_ms, length_ms)]
    rows = {track: number for number, track in enumerate(sorted({box["tid"] for box in shown}))}
    height = TOP + ROW * max(1, len(rows)) + 34
    scale = (WIDTH - LEFT - 20) / length_ms
    parts = [*_legend(), *_axis(length_ms, scale, height)]
    for track, row in rows.items():
        parts.append(_text(10, TOP + row * ROW + 18, escape(str(names.get(track, track)))))
    for box in shown:
        parts += _box(box, start_ms, scale, TOP + rows[box["tid"]] * ROW)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
    style = 'font-family="sans-serif" font-size="12">'
    return "\n".join([head + style, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _inside(box: Event, start_ms: float, length_ms: float) -> bool:
    return bool(box["ts"] / 1000 + box["dur"] / 1000 > start_ms and box["ts"] / 1000 < start_ms + length_ms)


def _box(box: Event, start_ms: float, scale: float, top: int) -> Iterable[str]:
    begin_ms = max(0.0, box["ts"] / 1000 - start_ms)
    end_ms = (box["ts"] + box["dur"]) / 1000 - start_ms
    left, width = LEFT + begin_ms * scale, max(1.0, (end_ms - begin_ms) * scale)
    right = min(left + width, float(WIDTH - 20))
    what = escape(f"{box['name']}, {box['cat']}, {box['dur'] / 1000:.1f} ms, {box['args']['outcome']}")
    shape = f'x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{BAR}"'
    yield f'<rect {shape} fill="{COLOURS[box["cat"]]}"><title>{what}</title></rect>'
    if box["args"]["outcome"] == "suspend":
        yield f'<path d="M{right:.1f} {top - 4}v{BAR + 8}" stroke="black" stroke-width="2"/>'


def _legend() -> Iterable[str]:
    for number, (name, colour) in enumerate(COLOURS.items()):
        left = LEFT + number * 130
        yield f'<rect x="{left}" y="10" width="12" height="12" fill="{colour}"/>' + _text(left + 18, 20, name)
    yield f'<path d="M{LEFT + 526} 8v16" stroke="black" stroke-width="2"/>'
    yield _text(LEFT + 536, 20, "preempted here")


def _axis(length_ms: float, scale: float, height: int) -> Iterable[str]:
    step_ms = next((step for step in (10, 20, 50, 100, 200, 500, 1000) if length_ms / step <= 12), 5000)
    for mark_ms in range(0, int(length_ms) + 1, step_ms):
        at = LEFT + mark_ms * scale
        yield f'<path d="M{at:.1f} {TOP - 8}V{height - 24}" stroke="#e3e7eb"/>'
        yield _text(at - 8, height - 8, f"{mark_ms} ms")


def _text(left: float, top: float, text: str) -> str:
    return f'<text x="{left:.1f}" y="{top}">{text}</text>'
