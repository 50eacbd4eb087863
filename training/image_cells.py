"""What each latent cell of a picture shows: labels beside the noise, for the backbones' auxiliary heads.

A picture is cut into 16x16 cells, one a latent position. Class 0 is the background.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from training.image_renderer import SIDE, Spot, place_points
from training.image_scene import COLOURS, KINDS, Item
from training.image_shapes import Part, parts_of

CELL: Final = 8
KIND_CLASSES: Final = len(KINDS) + 1
COLOUR_CLASSES: Final = len(COLOURS) + 1
_LEAST_COVER: Final = 100  # of 255: a little less than half of the cell


def _covered(part: Part, spot: Spot) -> npt.NDArray[np.bool_]:
    canvas = Image.new("L", (SIDE, SIDE), 0)
    pen = ImageDraw.Draw(canvas)
    for ring, fill in ((part.points, 255), (part.hole, 0)):
        if ring is not None:
            pen.polygon([(float(x), float(y)) for x, y in place_points(ring, spot)], fill=fill)
    return np.asarray(canvas.reduce(CELL)) >= _LEAST_COVER


def cells(placed: Iterable[tuple[Item, Spot]]) -> npt.NDArray[np.uint8]:
    """The kind (1 + index in KINDS) and the colour (1 + index in COLOURS) in each cell, uint8 (2, 16, 16).

    A part of another paint than the object's own, a sail or a door, has its kind but colour 0.
    """
    kind, colour = np.zeros((2, SIDE // CELL, SIDE // CELL), dtype=np.uint8)
    for item, spot in placed:
        for part in parts_of(item.kind):
            mask = _covered(part, spot)
            kind[mask] = KINDS.index(item.kind) + 1
            colour[mask] = COLOURS.index(item.colour) + 1 if part.paint in ("body", "shade") else 0
    return np.stack([kind, colour])
