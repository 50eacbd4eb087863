"""Tells whether a picture shows what a scene asks for: kinds, colours, number and relation of its objects.

Nothing is learned: regions that stand out from the background are compared with drawn silhouettes, and the
colour of each body is the nearest one of the palette. What is found does not depend on what is asked
for, but for the kind of background and for looking inside a container when the scene has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.image_scene import COLOURS, Hour, Item, Relation, Scene
from training.image_segment import Blob, Pixels, blobs, close, landscape_foreground, plain_foreground, shrink
from training.image_templates import body_colour, name_colours, name_kind

_LEAST_OVERLAP: Final = 0.66


@dataclass(frozen=True, slots=True)
class Seen:
    """One object found: its kind ("" when no silhouette fits), colour, and middle in pixels."""

    kind: str
    colour: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is right. `objects`: every item is there with its own kind and colour. None: nothing was asked."""

    kinds: bool
    colours: bool
    objects: bool
    count: bool
    relation: bool | None
    hour: bool | None
    seen: tuple[Seen, ...]


def _see(pixels: Pixels, blob: Blob) -> Seen:
    template, overlap = name_kind(blob)
    kind = template.kind if overlap >= _LEAST_OVERLAP else ""
    return Seen(kind, body_colour(pixels, blob, template), *blob.centre)


def _inner(pixels: Pixels, outer: Blob) -> list[Blob]:
    """Regions inside `outer` of another colour than most of it."""
    core = shrink(outer.mask, 3)
    if not core.any():
        return []
    names = name_colours(pixels)
    rim = shrink(outer.mask, 3) & ~shrink(outer.mask, 6)
    main = int(np.argmax(np.bincount(names[rim if rim.any() else core], minlength=len(COLOURS))))
    return blobs(core & (names != main), smallest=80)


def look(pixels: Pixels, scene: Scene) -> tuple[tuple[Seen, ...], Hour | None]:
    """All objects found in uint8 (128, 128, 3), and the hour of a landscape."""
    hour: Hour | None = None
    if scene.setting == "plain":
        foreground = close(plain_foreground(pixels), 1)
    else:
        hour, apart = landscape_foreground(pixels, scene.setting)
        foreground = close(apart, 2)
    found = blobs(foreground)
    if scene.setting != "plain":
        found = found[:1]
    if scene.relation == "inside" and found:
        inner = _inner(pixels, found[0])[:1]
        if inner:
            whole = Blob(found[0].mask, found[0].box)
            found = [whole, *inner, *found[1:]]
    return tuple(_see(pixels, blob) for blob in found), hour


def _wanted(scene: Scene) -> list[Item]:
    return [item for item in scene.items for _ in range(item.count)]


def _covers(seen: list[str], wanted: list[str]) -> bool:
    left = list(seen)
    for name in wanted:
        if name not in left:
            return False
        left.remove(name)
    return True


def _related(a: Seen, b: Seen, relation: Relation) -> bool:
    across, down = b.x - a.x, b.y - a.y
    if relation == "inside":
        return abs(across) < 16 and abs(down) < 16
    gap = {"left": across, "right": -across, "above": down, "below": -down, "and": float(SIDE_GAP + 1)}[
        relation
    ]
    return gap > SIDE_GAP


SIDE_GAP: Final = 16


def check(pixels: Pixels, scene: Scene) -> Verdict:
    """Compares what `look` finds in uint8 (128, 128, 3) with the scene."""
    seen, hour = look(pixels, scene)
    wanted = _wanted(scene)
    pairs = [f"{one.colour} {one.kind}" for one in seen]
    relation: bool | None = None
    if len(scene.items) == 2 and scene.relation != "and":
        matches = [
            [one for one in seen if (one.kind, one.colour) == (item.kind, item.colour)]
            for item in scene.items
        ]
        relation = any(_related(a, b, scene.relation) for a in matches[0] for b in matches[1])
    return Verdict(
        kinds=_covers([one.kind for one in seen], [item.kind for item in wanted]),
        colours=_covers([one.colour for one in seen], [item.colour for item in wanted]),
        objects=_covers(pairs, [f"{item.colour} {item.kind}" for item in wanted]),
        count=len(seen) == len(wanted),
        relation=relation,
        hour=None if hour is None else hour == scene.hour,
        seen=seen,
    )
