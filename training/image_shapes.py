"""Outlines of every kind of object, as polygons in a unit frame: x right, y down, within about [-1, 1].

Each object is a list of parts, painted in order. The part with paint "body" carries the object's colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Paint = Literal["body", "shade", "trunk", "sail", "window", "door"]


@dataclass(frozen=True, slots=True)
class Part:
    """A closed polygon, shape (points, 2), its paint, and an optional hole of the same form."""

    points: Points
    paint: Paint = "body"
    hole: Points | None = None


def _polygon(*pairs: float) -> Points:
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _regular(corners: int, radius: float = 1.0, start: float = -math.pi / 2) -> Points:
    angles = start + np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius


def _star() -> Points:
    points = _regular(10)
    points[1::2] *= 0.45
    return np.asarray(points + np.array([0.0, 0.06]))


def _heart() -> Points:
    t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 16.5, y / 16.0 - 0.1], axis=1)


def _moon() -> Points:
    """A crescent: the unit disc less a disc of radius 0.85 that is centred 0.5 to the right and 0.12 up."""
    centre, radius = np.array([0.5, -0.12]), 0.85
    gap = float(np.hypot(*centre))
    along = (1.0 - radius**2 + gap**2) / (2 * gap)
    axis = math.atan2(centre[1], centre[0])
    half = math.acos(along)
    outer = np.linspace(axis + half, axis + 2 * math.pi - half, 48)
    tips = (
        np.array([[math.cos(axis + side * half), math.sin(axis + side * half)] for side in (-1, 1)]) - centre
    )
    start, end = (math.atan2(tip[1], tip[0]) % (2 * math.pi) for tip in tips)
    inner = np.linspace(start if start > end else start + 2 * math.pi, end, 40)
    crescent = np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], axis=1),
            centre + radius * np.stack([np.cos(inner), np.sin(inner)], axis=1),
        ]
    )
    return np.asarray(crescent - (crescent.min(axis=0) + crescent.max(axis=0)) / 2)


def _cross() -> Points:
    a, b = 0.34, 0.95
    return _polygon(-a, -b, a, -b, a, -a, b, -a, b, a, a, a, a, b, -a, b, -a, a, -b, a, -b, -a, -a, -a)


def _tree() -> list[Part]:
    t = np.linspace(0, 2 * math.pi, 80, endpoint=False)
    radius = 0.66 + 0.06 * np.cos(7 * t)
    crown = np.stack([radius * np.cos(t), radius * np.sin(t) - 0.33], axis=1)
    return [Part(_polygon(-0.14, 0.15, 0.14, 0.15, 0.2, 1.0, -0.2, 1.0), "trunk"), Part(crown)]


def _house() -> list[Part]:
    return [
        Part(_polygon(-0.72, -0.12, 0.72, -0.12, 0.72, 0.95, -0.72, 0.95)),
        Part(_polygon(-0.95, -0.08, 0.0, -0.95, 0.95, -0.08), "shade"),
        Part(_polygon(-0.52, 0.38, -0.16, 0.38, -0.16, 0.95, -0.52, 0.95), "door"),
        Part(_polygon(0.12, 0.12, 0.52, 0.12, 0.52, 0.5, 0.12, 0.5), "window"),
    ]


def _boat() -> list[Part]:
    return [
        Part(_polygon(-0.05, -0.95, 0.06, -0.95, 0.06, 0.4, -0.05, 0.4), "trunk"),
        Part(_polygon(0.12, -0.9, 0.78, 0.18, 0.12, 0.18), "sail"),
        Part(_polygon(-0.12, -0.65, -0.12, 0.18, -0.62, 0.18), "sail"),
        Part(_polygon(-1.0, 0.3, 1.0, 0.3, 0.66, 0.9, -0.62, 0.9)),
    ]


_SIMPLE: Final = {
    "circle": lambda: _regular(48, 0.92),
    "square": lambda: _polygon(-0.82, -0.82, 0.82, -0.82, 0.82, 0.82, -0.82, 0.82),
    "triangle": lambda: _polygon(0.0, -0.92, 0.98, 0.78, -0.98, 0.78),
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "hexagon": lambda: _regular(6, 0.98, 0.0),
    "moon": _moon,
}


@cache
def parts_of(kind: str) -> tuple[Part, ...]:
    """The parts of one kind of object, in the order they are painted."""
    if kind == "ring":
        return (Part(_regular(48, 0.95), hole=_regular(48, 0.52)),)
    if kind in _SIMPLE:
        return (Part(_SIMPLE[kind]()),)
    return tuple({"tree": _tree, "house": _house, "boat": _boat}[kind]())
