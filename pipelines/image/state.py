"""The durable state of an image job: what its commits have made so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pipelines.contract import Job
from pipelines.image.backbones.base import Conditioning
from pipelines.image.request import ImagePlan
from pipelines.image.start import InitImage


@dataclass(slots=True, eq=False)
class ImageState:
    """Owner: the executor thread; written in commits only.

    latents: float32 (1, channels, height, width), noise at first. conditioning: of one pass or of two
    (negative prompt, prompt), None before it is made and after an eviction. step: evaluations committed
    so far, counted from `first`. generator: of the sampler's noise. init: the image to start from, until it
    is in the latents. quality: "full", or what was lowered at admission.
    """

    plan: ImagePlan
    sampler: Any
    latents: torch.Tensor
    generator: torch.Generator
    init: InitImage | None = None
    first: int = 0
    conditioning: tuple[Conditioning, ...] | None = None
    step: int = 0
    done: bool = False
    quality: str = "full"

    @property
    def evaluations(self) -> int:
        """The schedule's length; the steps, but for samplers that start with more."""
        return len(self.sampler.timesteps)

    @property
    def phase(self) -> str:
        """The kind of slice that comes next."""
        if self.step == self.evaluations:
            return "decode"
        if self.init is not None:
            return "start"
        return "encode" if self.conditioning is None else "denoise"

    @property
    def inputs(self) -> int:
        """Rows that this job puts into the network."""
        return len(self.plan.passes)


def state_of(job: Job) -> ImageState:
    """The state that `admit` set."""
    assert isinstance(job.state, ImageState)
    return job.state
