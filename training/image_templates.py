"""Names the kind of a region by its silhouette, and the colour of its body: no learned weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from training.image_renderer import PALETTE, SIDE, Spot, part_mask, second_shade
from training.image_scene import COLOURS, KINDS
from training.image_segment import Blob, Bool, Lab, fit, shrink, to_lab
from training.image_shapes import parts_of

Grid = npt.NDArray[np.float32]
_SIDE: Final = 32
_SHADES: Final = (0.72, 0.86, 1.0, 1.12)
_GLOSS: Final = (0.0, 0.2)


@dataclass(frozen=True, slots=True)
class Template:
    """The silhouette of one kind, float32 (32, 32), and which part of it shows the object's colour."""

    kind: str
    silhouette: Grid
    body: Bool


def _box(mask: Bool) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _template(kind: str, spot: Spot, waterline: float | None = None) -> Template:
    whole = np.zeros((SIDE, SIDE), dtype=bool)
    body = np.zeros((SIDE, SIDE), dtype=bool)
    for part in parts_of(kind):
        covered = (part_mask(part, spot, 0.0) > 0.5) | (part_mask(part, spot, 1.4) > 0.5)
        whole |= covered
        body = (body & ~covered) | (covered if part.paint == "body" else np.zeros_like(covered))
    if waterline is not None:
        whole[round(waterline * SIDE) :] = False
        body[round(waterline * SIDE) :] = False
    box = _box(whole)
    return Template(kind, fit(whole, box, _SIDE), fit(shrink(body, 2), box, _SIDE) > 0.7)


@cache
def templates() -> tuple[Template, ...]:
    """All kinds at three sizes and two tilts, and the boat cut off by the water in front of it."""
    made = [
        _template(kind, Spot(0.5, 0.5, radius, tilt))
        for kind in KINDS
        for radius in (0.12, 0.2, 0.36)
        for tilt in (-0.02, 0.02)
    ]
    cut = [_template("boat", Spot(0.5, 0.69 - r * 0.68, r), waterline=0.72) for r in (0.27, 0.29, 0.31)]
    return (*made, *cut)


def name_kind(blob: Blob) -> tuple[Template, float]:
    """The template whose silhouette is nearest to the region, and their intersection over union (0..1)."""
    seen = fit(blob.mask, blob.box, _SIDE)
    scores = [
        float(np.minimum(seen, known.silhouette).sum() / np.maximum(seen, known.silhouette).sum())
        for known in templates()
    ]
    best = int(np.argmax(scores))
    return templates()[best], scores[best]


@cache
def _references() -> tuple[Lab, npt.NDArray[np.int64]]:
    """Lab values that each palette colour takes under light, gloss and patterns, and its index."""
    values, owners = [], []
    for index, name in enumerate(COLOURS):
        base = np.array(PALETTE[name], dtype=np.float32)
        mark = second_shade(name, (base / 255).astype(np.float32)) * 255
        for pattern in (0.0, 0.75):
            for shade in _SHADES:
                for gloss in _GLOSS:
                    lit = base * shade * (1 - pattern) + mark * pattern
                    values.append(np.clip(lit + (255 - lit) * gloss, 0, 255))
                    owners.append(index)
    return to_lab(np.stack(values).astype(np.float32)), np.array(owners)


def name_colours(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For pixels (..., 3), the index in COLOURS of the nearest colour as the renderer would light it."""
    references, owners = _references()
    lab = to_lab(pixels)
    distance = np.linalg.norm(lab[..., None, :] - references, axis=-1)
    named: npt.NDArray[np.int64] = owners[np.argmin(distance, axis=-1)]
    return named


def body_colour(pixels: npt.NDArray[np.uint8], blob: Blob, template: Template) -> str:
    """The colour that most pixels of the region's body have; the body is where the template says it is."""
    top, left, bottom, right = blob.box
    extent = max(bottom - top, right - left)
    steps = (np.arange(_SIDE) + 0.5) / _SIDE - 0.5
    rows = np.floor((top + bottom) / 2 + steps * extent).astype(int).clip(0, SIDE - 1)
    columns = np.floor((left + right) / 2 + steps * extent).astype(int).clip(0, SIDE - 1)
    grid = np.ix_(rows, columns)
    inside = template.body & blob.mask[grid]
    chosen = pixels[grid][inside] if inside.any() else pixels[blob.mask]
    votes = np.bincount(name_colours(chosen), minlength=len(COLOURS))
    return COLOURS[int(np.argmax(votes))]
