"""The denoising loop: one model evaluation over rows at different steps, prompts, guidance and samplers.

Rows share only their size. An evaluation reads the rows' states and writes none; `advance`, the commit,
applies each row's own sampler. Guidance takes one pass (negative prompts first, then prompts; Ho and
Salimans 2022) and is skipped for rows with guidance at most 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipelines.image.divisible import divisible, plain
from pipelines.image.state import ImageState


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the U-Net was given and said for one row, float32 (1, channels, height, width)."""

    model_input: torch.Tensor
    output: torch.Tensor

    @property
    def finite(self) -> bool:
        """False where the model computed NaN or infinity."""
        return bool(torch.isfinite(self.output).all())


def evaluate(unet: Any, rows: Sequence[ImageState]) -> list[Evaluated]:
    """One evaluation for each row, guidance applied. Writes to no state."""
    scaled = [row.sampler.scale_model_input(row.latents, row.sampler.timesteps[row.step]) for row in rows]
    times = [float(row.sampler.timesteps[row.step]) for row in rows]
    guided = [index for index, row in enumerate(rows) if row.plan.guided]
    order = [*guided, *range(len(rows))]  # negative prompts of the guided rows, then all prompts
    texts = [_embedding(rows[i], 0) for i in guided] + [_embedding(row, -1) for row in rows]
    device, dtype = texts[0].device, texts[0].dtype
    latents, text = torch.cat([scaled[i] for i in order]).to(device, dtype), torch.cat(texts)
    macs = _longest_macs(unet, latents)
    raw = unet(
        divisible(latents, macs),
        torch.tensor([times[i] for i in order], device=device),
        encoder_hidden_states=divisible(text, macs),
        return_dict=False,
    )[0]
    raw = plain(raw).float()
    outputs = list(torch.split(raw[len(guided) :], 1))
    for place, index in enumerate(guided):
        negative = raw[place : place + 1]
        outputs[index] = negative + rows[index].plan.guidance * (outputs[index] - negative)
    return [Evaluated(*pair) for pair in zip(scaled, outputs, strict=True)]


def advance(row: ImageState, evaluated: Evaluated) -> None:
    """Commit of one row: its sampler's step."""
    timestep = row.sampler.timesteps[row.step]
    row.latents = row.sampler.step(evaluated.output, timestep, row.latents, return_dict=False)[0]
    row.step += 1


def _longest_macs(unet: Any, latents: torch.Tensor) -> int:
    """A 3x3 convolution of the top level, from the channels of two levels to those of the first; or the top
    level's attention, a quarter of whose cost is its softmax."""
    inputs, _, height, width = latents.shape
    top: int = unet.config.block_out_channels[0]
    return inputs * max(height * width * 27 * top**2, (height * width) ** 2 * 4 * top)


def _embedding(row: ImageState, which: int) -> torch.Tensor:
    assert row.text is not None
    return row.text[which].unsqueeze(0)
