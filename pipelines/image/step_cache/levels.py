"""From a named level of a request to a strategy. Levels: "off"; "balanced", at least 35 dB of PSNR against
the same picture without caching; "fast", at least 30 dB. Few steps leave nothing to
predict: caching is off then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipelines.errors import Unsupported
from pipelines.image.step_cache.base import StepCache
from pipelines.image.step_cache.forecast import Forecaster
from pipelines.image.step_cache.gate import Gate
from pipelines.image.step_cache.masks import Masks, spread
from pipelines.image.step_cache.split import Split

CACHE_LEVELS: Final = ("off", "balanced", "fast")
FEWEST_STEPS: Final = 9
_TOLERANCE: Final = {"balanced": 0.02, "fast": 0.06}
_RANK: Final = {level: rank for rank, level in enumerate(CACHE_LEVELS)}


@dataclass(frozen=True, slots=True)
class StepCaches:
    """What one model offers. masks: None without calibration. share: weight of the shallow part, None where
    the network cannot be split."""

    strategy: str
    masks: Masks | None
    share: float | None

    def __post_init__(self) -> None:
        """Raises: Unsupported, where the network cannot do what the strategy needs."""
        if self.strategy == "split" and self.share is None:
            raise Unsupported('image.step_cache: "split" needs a U-Net or a stack of transformer blocks')

    def cache(self, level: str, steps: int, first: int = 0) -> StepCache | None:
        """None where every step is computed. first: the step that the image starts at."""
        if level == "off" or steps - first < FEWEST_STEPS:
            return None
        if self.strategy == "gate":
            return Gate(_TOLERANCE[level])
        if self.strategy == "split":
            assert self.share is not None
            return Split(spread(level, steps) | _began(first), self.share)
        if self.strategy == "calibrated" and self.masks is not None:
            return Forecaster(self.masks.mask(level, steps) | _began(first))
        return Forecaster(spread(level, steps) | _began(first))


def _began(first: int) -> frozenset[int]:
    """An image that starts in the midst of the schedule has a slope of its own to find."""
    return frozenset({first, first + 1}) if first else frozenset()


def faster(level: str, other: str) -> str:
    """The one that skips more."""
    return max(level, other, key=_RANK.__getitem__)
