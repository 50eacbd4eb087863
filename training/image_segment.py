"""Finds objects in a picture by colour distance from the background: Lab, masks, connected components."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from training.image_renderer import SIDE, render_backdrop
from training.image_scene import Hour, Item, Scene, Setting

Lab = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

_TO_XYZ: Final = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=np.float32
)
_WHITE: Final = np.array([0.9505, 1.0, 1.089], dtype=np.float32)
_SMALLEST: Final = 50  # pixels
_CHROMA_LIMIT, _DARKER_LIMIT, _LIGHTER_LIMIT = 11.0, 24.0, 9.0


@dataclass(frozen=True, slots=True)
class Blob:
    """One connected region: its mask (128, 128), and its box as (top, left, bottom, right), ends excluded."""

    mask: Bool
    box: tuple[int, int, int, int]

    @property
    def area(self) -> int:
        return int(self.mask.sum())

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the box's middle, in pixels."""
        top, left, bottom, right = self.box
        return (left + right) / 2, (top + bottom) / 2


def to_lab(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Lab:
    """CIE Lab (D65) of sRGB values 0..255; the last axis holds the three channels."""
    rgb = np.asarray(pixels, dtype=np.float32) / 255.0
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )
    return lab.astype(np.float32)


def _differs(lab: Lab, background: Lab) -> Bool:
    """Pixels that are neither background nor a shadow on it."""
    change = lab - background
    chroma = np.hypot(change[..., 1], change[..., 2])
    same: Bool = (
        (chroma < _CHROMA_LIMIT) & (change[..., 0] > -_DARKER_LIMIT) & (change[..., 0] < _LIGHTER_LIMIT)
    )
    return ~same


def plain_foreground(pixels: Pixels) -> Bool:
    """Foreground of a picture whose background is a vertical gradient: compared with its border."""
    lab = to_lab(pixels)
    sides = np.median(np.concatenate([lab[:, :4], lab[:, -4:]], axis=1), axis=1)
    smooth = np.stack(
        [np.convolve(np.pad(sides[:, c], 8, "edge"), np.ones(17) / 17, "valid") for c in range(3)], 1
    )
    return _differs(lab, smooth[:, None].astype(np.float32))


@cache
def _landscapes(setting: Setting) -> tuple[tuple[Hour, Pixels], ...]:
    hours: tuple[Hour, ...] = ("day", "night", "sunset")
    return tuple(
        (hour, render_backdrop(Scene((Item("boat", "red"),), setting=setting, hour=hour), side))
        for hour in hours
        for side in (-1.0, 1.0)
    )


def landscape_foreground(pixels: Pixels, setting: Setting) -> tuple[Hour, Bool]:
    """The hour whose empty landscape is nearest to the picture, and what differs from that landscape."""
    lab = to_lab(pixels)
    candidates = [(hour, to_lab(empty)) for hour, empty in _landscapes(setting)]
    distances = [float(np.median(np.linalg.norm(lab - empty, axis=-1))) + float(np.abs(lab - empty).mean())
                 for _, empty in candidates]  # fmt: skip
    hour, empty = candidates[int(np.argmin(distances))]
    return hour, np.linalg.norm(lab - empty, axis=-1) > 28.0


def _spread(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    padded = np.pad(labels, 1)
    neighbours = [
        padded[1:-1, 1:-1],
        padded[:-2, 1:-1],
        padded[2:, 1:-1],
        padded[1:-1, :-2],
        padded[1:-1, 2:],
    ]
    spread: npt.NDArray[np.int32] = np.max(np.stack(neighbours), axis=0)
    return spread


def blobs(mask: Bool, smallest: int = _SMALLEST) -> list[Blob]:
    """Connected regions (four neighbours) of at least `smallest` pixels, largest first."""
    labels = np.where(mask, np.arange(1, mask.size + 1, dtype=np.int32).reshape(mask.shape), 0).astype(
        np.int32
    )
    while True:
        grown = np.where(mask, _spread(labels), 0).astype(np.int32)
        if np.array_equal(grown, labels):
            break
        labels = grown
    names, sizes = np.unique(labels[labels > 0], return_counts=True)
    found = []
    for name in names[sizes >= smallest]:
        region = labels == name
        rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
        box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        found.append(Blob(region, box))
    return sorted(found, key=lambda blob: -blob.area)


def shrink(mask: Bool, steps: int = 1) -> Bool:
    """The mask less its outermost pixels, `steps` times."""
    for _ in range(steps):
        mask = ~_spread((~mask).astype(np.int32)).astype(bool)
    return mask


def close(mask: Bool, steps: int) -> Bool:
    """Fills gaps up to twice `steps` pixels wide, such as an outline that has the background's colour."""
    grown = mask
    for _ in range(steps):
        grown = _spread(grown.astype(np.int32)).astype(bool)
    return shrink(grown, steps) | mask


def fit(mask: Bool, box: tuple[int, int, int, int], side: int = 32) -> npt.NDArray[np.float32]:
    """The part of `mask` inside `box`, scaled to fill a square of `side`, proportions kept."""
    top, left, bottom, right = box
    extent = max(bottom - top, right - left)
    middle_y, middle_x = (top + bottom) / 2, (left + right) / 2
    steps = (np.arange(side * 2) + 0.5) / (side * 2) - 0.5
    rows = np.floor(middle_y + steps * extent).astype(int).clip(0, SIDE - 1)
    columns = np.floor(middle_x + steps * extent).astype(int).clip(0, SIDE - 1)
    sampled = mask[np.ix_(rows, columns)].astype(np.float32)
    scaled: npt.NDArray[np.float32] = sampled.reshape(side, 2, side, 2).mean((1, 3))
    return scaled
