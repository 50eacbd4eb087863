"""Where a job starts: at noise, or at a noisy copy of an image (SDEdit, Meng et al. 2022).

Noise is drawn on the CPU, so that a seed means the same picture on every device, and in diffusers: first,
with an image, what samples the VAE's posterior, then the latents' noise, then what a sampler draws at its
steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pipelines.contract import ByteArray
from pipelines.image.request import ImagePlan
from pipelines.image.samplers import noised
from pipelines.image.vae import Vae


@dataclass(frozen=True, slots=True, eq=False)
class InitImage:
    """An image to start from, until the VAE has seen it. noise: of the posterior, shaped as the latents."""

    pixels: ByteArray
    noise: torch.Tensor

    def latents(self, vae: Vae, sampler: Any, first: int, noise: torch.Tensor) -> torch.Tensor:
        """The image as it is before step number `first`; with preemption points inside."""
        return noised(sampler, vae.encode(self.pixels, self.noise), noise, first)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """latents: float32, noise of unit deviation. generator: behind what has been drawn."""

    latents: torch.Tensor
    generator: torch.Generator
    init: InitImage | None


def draw(plan: ImagePlan, vae: Vae, device: torch.device) -> Start:
    """All that the seed says before the first step."""
    generator = torch.Generator().manual_seed(plan.seed)
    shape = (1, vae.channels, plan.height // vae.factor, plan.width // vae.factor)
    init = None
    if plan.init is not None:
        init = InitImage(plan.init, torch.randn(shape, generator=generator).to(device))
    return Start(torch.randn(shape, generator=generator).to(device), generator, init)
