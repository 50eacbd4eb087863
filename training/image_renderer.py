"""Draws scenes at 128x128: anti-aliased (four-fold supersampling), lit from the upper left, soft shadows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from training.image_scene import Item, Scene
from training.image_shapes import Part, Points, parts_of

SIDE: Final = 128
_OVER: Final = 4
Picture = npt.NDArray[np.float32]
Mask = npt.NDArray[np.float32]

PALETTE: Final[dict[str, tuple[int, int, int]]] = {
    "red": (214, 38, 40), "orange": (245, 132, 22), "yellow": (250, 212, 36), "green": (44, 156, 62),
    "blue": (34, 92, 216), "purple": (132, 48, 176), "pink": (250, 128, 186), "brown": (126, 76, 38),
    "white": (250, 250, 248), "black": (28, 28, 32),
}  # fmt: skip
_PAINTS: Final = {
    "trunk": (104, 66, 40), "sail": (246, 238, 216), "window": (186, 224, 246), "door": (92, 58, 40),
}  # fmt: skip
_BACKDROPS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (226, 128, 122), "yellow": (244, 230, 150), "green": (150, 204, 150), "blue": (146, 186, 232),
    "purple": (186, 158, 216), "pink": (248, 200, 216), "gray": (168, 170, 174),
}  # fmt: skip
_PLAIN: Final = ((226, 222, 212), (214, 224, 232), (220, 228, 214))
_PLAIN_DIM: Final = ((158, 154, 146), (140, 154, 166), (150, 162, 144))
_DARKER_SHADES: Final = {"white": np.float32(0.8), "yellow": np.float32(0.55), "pink": np.float32(0.55)}
_SKIES: Final = {
    "day": ((118, 184, 240), (214, 236, 250)),
    "night": ((18, 22, 58), (52, 58, 110)),
    "sunset": ((240, 120, 84), (254, 206, 130)),
}
_WATERS: Final = {"day": (64, 150, 176), "night": (22, 44, 78), "sunset": (126, 104, 128)}
_GRASS: Final = {"day": (126, 186, 92), "night": (34, 72, 60), "sunset": (132, 140, 72)}
_RAMP: Final = np.linspace(0, 1, SIDE, dtype=np.float32)
_YY, _XX = np.meshgrid(_RAMP, _RAMP, indexing="ij")


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one object goes: centre and half-width in shares of the picture's side, tilt in radians."""

    x: float
    y: float
    radius: float
    tilt: float = 0.0


def _rgb(colour: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    return np.array(colour, dtype=np.float32) / 255.0


def _mask(points: Points, hole: Points | None, stroke: float = 0.0) -> Mask:
    """Coverage in [0, 1], shape (128, 128), of a polygon in pixels, or of its outline `stroke` wide."""
    canvas = Image.new("L", (SIDE * _OVER, SIDE * _OVER), 0)
    pen = ImageDraw.Draw(canvas)
    for ring, fill in ((points, 255), (hole, 0)):
        if ring is None:
            continue
        corners = [(float(x), float(y)) for x, y in ring * _OVER]
        if stroke:
            pen.line([*corners, corners[0], corners[1]], fill=255, width=round(stroke * _OVER), joint="curve")
        else:
            pen.polygon(corners, fill=fill)
    return np.asarray(canvas.reduce(_OVER), dtype=np.float32) / 255.0


def place_points(points: Points, spot: Spot) -> Points:
    cos, sin = math.cos(spot.tilt), math.sin(spot.tilt)
    turned = points @ np.array([[cos, sin], [-sin, cos]])
    placed: Points = (turned * spot.radius + np.array([spot.x, spot.y])) * SIDE
    return placed


def part_mask(part: Part, spot: Spot, stroke: float) -> Mask:
    """Coverage of a part, or with a `stroke` in pixels of its outline alone; float32 (128, 128) in [0, 1]."""
    hole = None if part.hole is None else place_points(part.hole, spot)
    return _mask(place_points(part.points, spot), hole, stroke)


def _speckles(rng: np.random.Generator) -> Picture:
    """Smooth noise, shape (128, 128), with grains of about four pixels."""
    grains = Image.fromarray(rng.standard_normal((SIDE // 4, SIDE // 4)).astype(np.float32))
    return np.asarray(grains.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)


def _pattern(item: Item, spot: Spot, rng: np.random.Generator) -> Picture:
    """The second shade's share per pixel, shape (128, 128): stripes, dots, a gradient downwards or noise."""
    u = ((_XX - spot.x) / spot.radius).astype(np.float32)
    v = ((_YY - spot.y) / spot.radius).astype(np.float32)
    wave: Picture = v * 3.0
    if item.pattern == "striped":
        wave = np.sin((u + v) * 8.0) * 4.0
    elif item.pattern == "speckled":
        wave = _speckles(rng) * 4.0
    elif item.pattern == "dotted":
        wave = (np.cos(u * 10.0) + np.cos(v * 10.0) - 0.9) * 4.0
    return (1.0 / (1.0 + np.exp(-wave))).astype(np.float32)


def second_shade(colour: str, base: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The shade of stripes and the like on `base`, RGB in [0, 1]: darker on light colours, else lighter.

    On white it is little darker, since what is white stands on gray.
    """
    darker = _DARKER_SHADES.get(colour)
    return base * darker if darker else base + (1.0 - base) * np.float32(0.45)


def _body(item: Item, spot: Spot, rng: np.random.Generator) -> Picture:
    """The lit surface of an object, shape (128, 128, 3)."""
    base = _rgb(PALETTE[item.colour]) + rng.uniform(-0.02, 0.02, 3).astype(np.float32)
    u, v = (_XX - spot.x) / spot.radius, (_YY - spot.y) / spot.radius
    light = 1.04 - 0.13 * (u + v)
    surface = base * light[..., None]
    gloss = 0.20 * np.exp(-((u + 0.38) ** 2 + (v + 0.42) ** 2) / 0.16)
    surface += (1.0 - surface) * gloss[..., None]
    if item.pattern:
        target = second_shade(item.colour, base)
        share = _pattern(item, spot, rng)[..., None] * 0.75
        surface = surface * (1 - share) + target * share
    return np.clip(surface, 0, 1).astype(np.float32)


def _paint(picture: Picture, coverage: Mask, colour: Picture) -> None:
    picture += (colour - picture) * coverage[..., None]


def _draw_part(picture: Picture, part: Part, item: Item, spot: Spot, rng: np.random.Generator) -> None:
    points = place_points(part.points, spot)
    hole = None if part.hole is None else place_points(part.hole, spot)
    body = _body(item, spot, rng)
    if part.paint == "shade":
        body = body + 0.16 if item.colour == "black" else body * (0.42 if item.colour == "white" else 0.62)
    elif part.paint != "body":
        light = 1.04 - 0.10 * ((_XX - spot.x) + (_YY - spot.y)) / spot.radius
        body = np.clip(_rgb(_PAINTS[part.paint]) * light[..., None], 0, 1)
    _paint(picture, _mask(points, hole), body)
    edge = _rgb(PALETTE[item.colour] if part.paint in ("body", "shade") else _PAINTS[part.paint]) * 0.45
    _paint(picture, _mask(points, hole, stroke=1.4), edge)


def _shadow(picture: Picture, item: Item, spot: Spot) -> None:
    """A soft shadow, two pixels down and right of the object."""
    coverage = np.zeros((SIDE, SIDE), dtype=np.float32)
    for part in parts_of(item.kind):
        hole = None if part.hole is None else place_points(part.hole, spot) + 2.5
        coverage = np.maximum(coverage, _mask(place_points(part.points, spot) + 2.5, hole))
    blurred = Image.fromarray((coverage * 90).astype(np.uint8)).filter(ImageFilter.BoxBlur(3))
    picture *= 1.0 - np.asarray(blurred, dtype=np.float32)[..., None] / 255.0


def draw_item(
    picture: Picture, item: Item, spot: Spot, rng: np.random.Generator, shadow: bool = True
) -> None:
    """Paints one object onto `picture`, float32 (128, 128, 3) in [0, 1], in place."""
    if shadow:
        _shadow(picture, item, spot)
    for part in parts_of(item.kind):
        _draw_part(picture, part, item, spot, rng)


def _gradient(top: npt.NDArray[np.float32], bottom: npt.NDArray[np.float32]) -> Picture:
    return (top + (bottom - top) * _RAMP[:, None, None]) * np.ones((1, SIDE, 1), dtype=np.float32)


def _backdrop(scene: Scene, rng: np.random.Generator) -> Picture:
    if scene.background == "plain":
        dim = any(item.colour == "white" for item in scene.items)
        tones = _PLAIN_DIM if dim else _PLAIN
        base = _rgb(tones[int(rng.integers(len(tones)))])
    else:
        base = _rgb(_BACKDROPS[scene.background])
    return _gradient(np.clip(base * 1.05, 0, 1), base * 0.93)


def _heavens(picture: Picture, hour: str, x: float) -> None:
    """The sun by day and at sunset; stars and a crescent by night."""
    if hour == "night":
        for k in range(9):
            sx, sy = (0.07 + 0.113 * k) % 1.0, 0.06 + 0.29 * ((k * 0.618) % 1.0)
            glow = np.exp(-((_XX - sx) ** 2 + (_YY - sy) ** 2) / 0.00008)
            _paint(picture, (glow * 0.9).astype(np.float32), np.ones((SIDE, SIDE, 3), dtype=np.float32))
        points = place_points(parts_of("moon")[0].points, Spot(x, 0.19, 0.11, -0.4))
        _paint(
            picture, _mask(points, None), np.ones((SIDE, SIDE, 3), dtype=np.float32) * _rgb((250, 240, 200))
        )
        return
    y = 0.18 if hour == "day" else 0.40
    near = np.sqrt((_XX - x) ** 2 + (_YY - y) ** 2)
    tone = _rgb((255, 226, 90) if hour == "day" else (255, 236, 170))
    halo = 0.45 * np.exp(-((near / 0.16) ** 2))
    disc = np.clip((0.092 - near) * SIDE + 0.5, 0, 1)
    _paint(
        picture, np.maximum(halo, disc).astype(np.float32), np.ones((SIDE, SIDE, 3), dtype=np.float32) * tone
    )


def _waves(picture: Picture, level: float, hour: str, phase: float) -> None:
    depth = np.clip((_YY - level) / (1 - level), 0, 1)
    water = _rgb(_WATERS[hour]) * (1.12 - 0.35 * depth[..., None])
    ripples = np.sin(_YY * 95.0 + 2.2 * np.sin(_XX * 19.0 + phase + _YY * 30.0)) > 0.86
    water = water + (ripples * (0.16 * (0.4 + depth)))[..., None]
    crest = level + 0.006 * np.sin(_XX * 40.0 + phase)
    _paint(picture, np.clip((_YY - crest) * SIDE + 0.5, 0, 1).astype(np.float32), np.clip(water, 0, 1))


def _empty_landscape(scene: Scene, side: float, phase: float) -> Picture:
    top, bottom = _SKIES[scene.hour]
    picture = _gradient(_rgb(top), _rgb(bottom))
    _heavens(picture, scene.hour, 0.5 - side * 0.32)
    if scene.setting == "water":
        _waves(picture, 0.62, scene.hour, phase)
        return picture
    hill = np.clip((_YY - (0.68 + 0.7 * (_XX - 0.5) ** 2)) * SIDE + 0.5, 0, 1)
    grass = _rgb(_GRASS[scene.hour]) * (1.14 - 0.5 * np.clip(_YY - 0.66, 0, 1))[..., None]
    grass = grass + 0.03 * np.sin(_XX * 140.0)[..., None] * np.sin(_YY * 170.0)[..., None]
    _paint(picture, hill.astype(np.float32), np.clip(grass, 0, 1))
    return picture


def _landscape(scene: Scene, rng: np.random.Generator) -> tuple[Picture, Spot]:
    side, phase = float(rng.choice([-1.0, 1.0])), float(rng.uniform(0, 1.0))
    x = 0.5 + side * float(rng.uniform(0.0, 0.05))
    picture = _empty_landscape(scene, side, phase)
    if scene.setting == "hill":
        radius = float(rng.uniform(0.23, 0.27))
        spot = Spot(x, 0.72 - radius * 0.9, radius)
        draw_item(picture, scene.items[0], spot, rng, shadow=False)
        return picture, spot
    radius = float(rng.uniform(0.27, 0.31))
    spot = Spot(x, 0.69 - radius * 0.68, radius)
    draw_item(picture, scene.items[0], spot, rng, shadow=False)
    front = picture.copy()
    _waves(front, 0.72, scene.hour, phase + 1.0)
    _paint(picture, np.clip((_YY - 0.72) * SIDE, 0, 1).astype(np.float32), front)
    return picture, spot


def render_backdrop(scene: Scene, side: float) -> npt.NDArray[np.uint8]:
    """A landscape without its object, uint8 (128, 128, 3); sun or moon left for side +1, else right."""
    return (np.clip(_empty_landscape(scene, side, 0.5), 0, 1) * 255.0 + 0.5).astype(np.uint8)


def _radius(item: Item, medium: float, rng: np.random.Generator) -> float:
    """Half-width; large is a fifth more where objects share the picture, a third more alone."""
    scale = {"small": 0.68, "large": 1.36 if medium > 0.2 else 1.2, "": 1.0}[item.size]
    return medium * scale * float(rng.uniform(0.96, 1.04))


def lay_out(scene: Scene, rng: np.random.Generator) -> list[tuple[Item, Spot]]:
    """Where each object of a scene on a plain or coloured background goes."""
    first = scene.items[0]
    jitter = [float(v) for v in rng.uniform(-0.015, 0.015, 10)]
    if len(scene.items) == 1 and first.count == 1:
        return [(first, Spot(0.5 + jitter[0], 0.5 + jitter[1], _radius(first, 0.29, rng), jitter[2] * 2))]
    if len(scene.items) == 1:
        centres = {
            2: ((0.28, 0.5), (0.72, 0.5)),
            3: ((0.28, 0.7), (0.72, 0.7), (0.5, 0.28)),
            4: ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)),
        }[first.count]
        radius = _radius(first, 0.185, rng)
        return [(first, Spot(x + jitter[i], y + jitter[i + 4], radius)) for i, (x, y) in enumerate(centres)]
    second = scene.items[1]
    if scene.relation == "inside":
        middle = 0.5 + jitter[0], 0.5 + jitter[1]
        inner = 0.40 * (0.36 if second.kind == "ring" else 0.46)
        return [(second, Spot(*middle, 0.40)), (first, Spot(*middle, inner))]
    a, b = {
        "and": ((0.27, 0.5), (0.73, 0.5)), "left": ((0.27, 0.5), (0.73, 0.5)),
        "right": ((0.73, 0.5), (0.27, 0.5)), "above": ((0.5, 0.27), (0.5, 0.73)),
        "below": ((0.5, 0.73), (0.5, 0.27)),
    }[scene.relation]  # fmt: skip
    return [
        (first, Spot(a[0] + jitter[0], a[1] + jitter[1], _radius(first, 0.167, rng))),
        (second, Spot(b[0] + jitter[2], b[1] + jitter[3], _radius(second, 0.167, rng))),
    ]


def render_placed(
    scene: Scene, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], list[tuple[Item, Spot]]]:
    """Draws `scene`; the picture, uint8 (128, 128, 3), and where each object went, in the order painted."""
    if scene.setting != "plain":
        picture, place = _landscape(scene, rng)
        placed = [(scene.items[0], place)]
    else:
        picture = _backdrop(scene, rng)
        placed = lay_out(scene, rng)
        for item, spot in placed:
            draw_item(picture, item, spot, rng)
    return (np.clip(picture, 0, 1) * 255.0 + 0.5).astype(np.uint8), placed


def render(scene: Scene, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draws `scene`; uint8, shape (128, 128, 3). The same generator state gives the same picture."""
    return render_placed(scene, rng)[0]
