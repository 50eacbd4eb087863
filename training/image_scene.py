"""What a picture shows: the vocabulary, random scenes, and what is held out of training.

A `Scene` is pure structure (kinds, colours, sizes, relation, setting): `image_captions` puts it into words,
`image_renderer` into pixels, `image_checker` looks for it in a picture. Layout and jitter are the renderer's.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

KINDS: Final = (
    "circle", "square", "triangle", "star", "heart", "ring", "cross", "hexagon", "moon", "tree", "house",
    "boat",
)  # fmt: skip
COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black")
CONTAINERS: Final = ("circle", "square", "heart", "hexagon", "ring")
INSIDERS: Final = ("circle", "square", "triangle", "star", "heart", "cross", "hexagon")
BACKGROUNDS: Final = ("plain", "red", "yellow", "green", "blue", "purple", "pink", "gray")

Size = Literal["", "small", "large"]
Pattern = Literal["", "striped", "dotted", "graded", "speckled"]
Relation = Literal["and", "left", "right", "above", "below", "inside"]
Setting = Literal["plain", "hill", "water"]
Hour = Literal["day", "night", "sunset"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing, or `count` equal things, to draw; size "" is medium, pattern "" a plain fill."""

    kind: str
    colour: str
    size: Size = ""
    pattern: Pattern = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two items; `relation` is where the first is, seen from the second. Landscapes have an hour."""

    items: tuple[Item, ...]
    relation: Relation = "and"
    background: str = "plain"
    setting: Setting = "plain"
    hour: Hour = "day"


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _size(rng: np.random.Generator) -> Size:
    return ("small", "large", "", "", "")[int(rng.integers(5))]


def _pattern(rng: np.random.Generator) -> Pattern:
    """A texture for two items in five."""
    return ("striped", "dotted", "graded", "speckled", "", "", "", "", "", "")[int(rng.integers(10))]


def _background(rng: np.random.Generator, used: set[str]) -> str:
    if rng.random() > 0.15:
        return "plain"
    return _pick(rng, tuple(name for name in BACKGROUNDS if name not in used))


def _single(rng: np.random.Generator) -> Scene:
    item = Item(_pick(rng, KINDS), _pick(rng, COLOURS), _size(rng), _pattern(rng))
    return Scene((item,), background=_background(rng, {item.colour}))


def _counted(rng: np.random.Generator) -> Scene:
    item = Item(_pick(rng, KINDS), _pick(rng, COLOURS), count=int(rng.integers(2, 5)))
    return Scene((item,), background=_background(rng, {item.colour}))


def _pair(rng: np.random.Generator) -> Scene:
    relation: Relation = ("and", "and", "left", "right", "above", "below", "inside")[int(rng.integers(7))]
    inside = relation == "inside"
    first = Item(_pick(rng, INSIDERS if inside else KINDS), _pick(rng, COLOURS), "" if inside else _size(rng))
    second_colour = _pick(rng, tuple(c for c in COLOURS if c != first.colour))
    second_kind = _pick(rng, tuple(k for k in (CONTAINERS if inside else KINDS) if k != first.kind))
    second = Item(second_kind, second_colour, "" if inside else _size(rng))
    return Scene((first, second), relation, _background(rng, {first.colour, second_colour}))


def _landscape(rng: np.random.Generator) -> Scene:
    hour: Hour = ("day", "day", "night", "sunset")[int(rng.integers(4))]
    if rng.random() < 0.6:
        return Scene((Item("boat", _pick(rng, COLOURS)),), setting="water", hour=hour)
    return Scene(
        (Item(_pick(rng, ("house", "house", "tree")), _pick(rng, COLOURS)),), setting="hill", hour=hour
    )


def draw_scene(rng: np.random.Generator, pairs: float = 0.24) -> Scene:
    """A random scene: a share `pairs` of two objects; of the others 68 % one, 9 % several, 23 % land."""
    if rng.random() < pairs:
        return _pair(rng)
    share = rng.random()
    if share < 0.68:
        return _single(rng)
    return _counted(rng) if share < 0.77 else _landscape(rng)


def is_held_out(scene: Scene) -> bool:
    """Whether training never sees this scene: any red boat, and a hash-chosen tenth of all combinations.

    With two objects the combination is that of their colours and kinds, in any order, size, relation.
    """
    if any(item.kind == "boat" and item.colour == "red" for item in scene.items):
        return True
    if len(scene.items) > 1:
        name = "+".join(sorted(f"{item.colour} {item.kind}" for item in scene.items))
    else:
        item = scene.items[0]
        place = f"{scene.background} {scene.setting} {scene.hour}"
        name = f"{item.count} {item.size} {item.pattern} {item.colour} {item.kind} {place}"
    return zlib.crc32(name.encode()) % 10 == 0


def draw_unseen(rng: np.random.Generator) -> Scene:
    """A random scene of those that are held out, in the shares of `draw_scene`."""
    while not is_held_out(scene := draw_scene(rng)):
        continue
    return scene
