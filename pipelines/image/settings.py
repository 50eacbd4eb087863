"""Settings of the image pipeline, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipelines.errors import InvalidRequest

STRATEGIES: Final = ("calibrated", "forecast", "gate", "split")
_LIMITS: Final = {
    "max_jobs": (1, 65_536),
    "max_rows": (1, 256),
    "max_side": (64, 4096),
    "max_characters": (1, 100_000),
}


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Limits of one loaded image model, and where it runs.

    max_jobs: images admitted at once. max_rows: images that share one model evaluation. max_side: pixels of
    width and of height. max_characters: of the prompt and of the negative prompt. device: "cpu" or
    "cuda[:N]". dtype: of the weights; latents and schedulers stay float32. loras: (name, file) of the LoRA
    add-ons to load; those that do not fit the model are passed over. step_cache: how a request's cache level
    is kept: "calibrated" (masks from the model folder; without them as "forecast"), "forecast", "gate",
    "split".
    """

    max_jobs: int = 64
    max_rows: int = 8
    max_side: int = 1024
    max_characters: int = 4000
    device: str = "cpu"
    dtype: str = "float32"
    loras: tuple[tuple[str, str], ...] = ()
    step_cache: str = "calibrated"

    def __post_init__(self) -> None:
        for field, (low, high) in _LIMITS.items():
            if not low <= getattr(self, field) <= high:
                raise InvalidRequest(f"image.{field}", f"must be {low} to {high}, not {getattr(self, field)}")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise InvalidRequest("image.dtype", f"float32, bfloat16 or float16, not {self.dtype!r}")
        if self.step_cache not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise InvalidRequest("image.step_cache", f"one of {known}, not {self.step_cache!r}")
