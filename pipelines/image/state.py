"""The durable state of an image job: what its commits have made so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pipelines.contract import Job
from pipelines.image.request import ImagePlan


@dataclass(slots=True, eq=False)
class ImageState:
    """Owner: the executor thread; written in commits only.

    latents: float32 (1, channels, height, width), noise at first. text: embeddings (1 or 2, tokens, width) in
    the model's dtype, None before they are made and after an eviction. step: evaluations committed so far.
    quality: "full", or what was lowered at admission.
    """

    plan: ImagePlan
    sampler: Any
    latents: torch.Tensor
    text: torch.Tensor | None = None
    step: int = 0
    done: bool = False
    quality: str = "full"

    @property
    def evaluations(self) -> int:
        """Model evaluations in all; the steps, but for samplers that start with more."""
        return len(self.sampler.timesteps)

    @property
    def phase(self) -> str:
        """The kind of slice that comes next."""
        if self.step == self.evaluations:
            return "decode"
        return "encode" if self.text is None else "denoise"

    @property
    def inputs(self) -> int:
        """Rows that this job puts into the U-Net."""
        return len(self.plan.token_ids)


def state_of(job: Job) -> ImageState:
    """The state that `admit` set."""
    assert isinstance(job.state, ImageState)
    return job.state
