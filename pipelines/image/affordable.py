"""Quality yields before service does, where the client allows it, and the reply says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pipelines.image.request import ImagePlan
from pipelines.image.step_cache.levels import FEWEST_STEPS, faster

CROWDED: Final = 0.5
FULL_HOUSE: Final = 0.75
_LEAST_STEPS: Final = 8


def affordable(plan: ImagePlan, load: float) -> tuple[ImagePlan, str]:
    """The plan that is served, and its quality in words. load: share of `max_jobs` at work.

    From half on, steps are predicted as the level "fast" does. From three quarters on, and where there are
    too few steps to predict any, half of them are taken, though not fewer than eight.
    """
    if not plan.may_lower or load < CROWDED:
        return plan, "full"
    lowered: list[str] = []
    level = faster(plan.cache_level, "fast") if plan.steps >= FEWEST_STEPS else plan.cache_level
    if level != plan.cache_level:
        lowered.append(f"cache level {level}")
    steps = plan.steps
    if load >= FULL_HOUSE or steps < FEWEST_STEPS:
        steps = min(plan.steps, max(_LEAST_STEPS, plan.steps // 2))
    if steps != plan.steps:
        lowered.append(f"{steps} of {plan.steps} steps")
    return replace(plan, steps=steps, cache_level=level), ", ".join(lowered) or "full"
