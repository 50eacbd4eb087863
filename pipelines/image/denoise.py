"""The denoising loop: one model evaluation over rows at different steps, prompts, guidance and samplers.

Rows share only their size. An evaluation reads the rows' states and writes none; `advance`, the commit,
applies each row's own sampler. Guidance takes one pass (negative prompts first, then prompts; Ho and
Salimans 2022) and is skipped for rows with guidance at most 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipelines.image.backbones.base import Backbone, Conditioning
from pipelines.image.lora import applied
from pipelines.image.samplers import model_input, stepped
from pipelines.image.state import ImageState


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the network was given and said for one row, float32 (1, channels, height, width)."""

    model_input: torch.Tensor
    output: torch.Tensor

    @property
    def finite(self) -> bool:
        """False where the model computed NaN or infinity."""
        return bool(torch.isfinite(self.output).all())


def evaluate(backbone: Backbone, rows: Sequence[ImageState]) -> list[Evaluated]:
    """One evaluation for each row, guidance applied. Writes to no state."""
    scaled = [model_input(row.sampler, row.latents, row.step) for row in rows]
    times = [float(row.sampler.timesteps[row.step]) for row in rows]
    guided = [index for index, row in enumerate(rows) if row.plan.guided]
    order = [*guided, *range(len(rows))]  # negative prompts of the guided rows, then all prompts
    conditioning = [_conditioning(rows[i], 0) for i in guided] + [_conditioning(row, -1) for row in rows]
    latents = torch.cat([scaled[i] for i in order]).to(next(backbone.network.parameters()))
    wanted_times = torch.tensor([times[i] for i in order], device=latents.device)
    with applied([rows[i].plan.loras for i in order], latents.device):
        raw = backbone.evaluate(latents, wanted_times, conditioning).float()
    outputs = list(torch.split(raw[len(guided) :], 1))
    for place, index in enumerate(guided):
        negative = raw[place : place + 1]
        outputs[index] = negative + rows[index].plan.guidance * (outputs[index] - negative)
    return [Evaluated(*pair) for pair in zip(scaled, outputs, strict=True)]


def advance(row: ImageState, evaluated: Evaluated) -> None:
    """Commit of one row: its sampler's step."""
    row.latents = stepped(row.sampler, evaluated.output, row.step, row.latents, row.generator)
    row.step += 1


def _conditioning(row: ImageState, which: int) -> Conditioning:
    assert row.conditioning is not None
    return row.conditioning[which]
