"""Which steps are full: calibrated masks from a model's folder, and what holds without calibration.

`python -m benchmarks.step_cache --calibrate` finds, for a few numbers of steps, the mask with which an
order-1 forecast of noise disturbs the folder's own pictures least, and writes `step_cache.json`:

    {"guidance": 2.0, "masks": {"28": {"balanced": [0, 2, 4, 8, 14, 20, 25], "fast": [0, 3, 7, 13, 23]}}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipelines.errors import ModelBroken

FILE: Final = "step_cache.json"
LEVELS: Final = ("balanced", "fast")
_UNCALIBRATED: Final = {"balanced": 12, "fast": 9}
Mask = frozenset[int]


@dataclass(frozen=True, slots=True)
class Masks:
    """Calibrated masks: by number of steps, by level, the full steps in order."""

    by_steps: Mapping[int, Mapping[str, tuple[int, ...]]]

    def mask(self, level: str, steps: int) -> Mask:
        """That of the calibrated number of steps that is nearest, stretched to `steps`."""
        nearest = min(self.by_steps, key=lambda known: (abs(known - steps), known))
        scale = (steps - 1) / (nearest - 1)
        return frozenset({0, *(round(step * scale) for step in self.by_steps[nearest][level])})


def spread(level: str, steps: int) -> Mask:
    """Without calibration: twelve full evaluations for `balanced` and nine for `fast`: how many are needed
    depends on the path from noise to picture and little on the number of steps it is cut into."""
    return evenly(min(_UNCALIBRATED[level], steps), steps)


def evenly(count: int, steps: int) -> Mask:
    """The first two steps, the last, and the others at equal distances."""
    places = (round(place * (steps - 1) / (count - 2)) for place in range(count - 1))
    return frozenset({0, 1, *places})


def read_masks(folder: Path) -> Masks | None:
    """None where the folder has no such file. Raises: ModelBroken naming what is wrong in it."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        masks = {int(steps): _checked(int(steps), levels) for steps, levels in content["masks"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelBroken(f"{FILE}: {type(error).__name__}: {error}") from error
    if not masks:
        raise ModelBroken(f"{FILE}: masks is empty")
    return Masks(masks)


def _checked(steps: int, levels: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """One number of steps. Raises: ValueError, KeyError."""
    found = {level: tuple(levels[level]) for level in LEVELS}
    for level, mask in found.items():
        if not all(type(step) is int and 0 <= step < steps for step in mask):
            raise ValueError(f"masks.{steps}.{level}: steps must be 0 to {steps - 1}")
    if steps < 2:
        raise ValueError(f"masks.{steps}: at least 2 steps")
    return found
