"""The kinds of slice: start, encode, denoise (or its shallow part), decode. Each computes first, with
preemption points and without touching a job, and then commits in one go.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Generator
from typing import Final, TypeVar

import numpy as np
import torch

from pipelines.contract import ByteArray, Emission, Job, RawImage
from pipelines.image import denoise
from pipelines.image.backbones.base import Conditioning, Pass
from pipelines.image.loader import Components
from pipelines.image.lora import Weights, applied
from pipelines.image.preview import PreviewMap, to_bytes
from pipelines.image.samplers import predicted_clean
from pipelines.image.state import ImageState, state_of
from pipelines.image.step_cache.base import Decision
from pipelines.interruptible import interruptible, point
from pipelines.messages import Done, Failed, FinishReason, Usage

BAND_PIXELS: Final = 1 << 17
T = TypeVar("T")
Steps = Generator[Emission | None, None, None]


def encode(parts: Components, jobs: tuple[Job, ...]) -> Steps:
    """The conditioning of all rows, in one go."""
    rows = [state_of(job) for job in jobs]
    passes = [each for row in rows for each in row.plan.passes]
    loras = [row.plan.loras for row in rows for _ in row.plan.passes]
    made = iter((yield from _points(lambda: _encoded(parts, passes, loras))))
    for row in rows:
        row.conditioning = tuple(itertools.islice(made, row.inputs))


def start(parts: Components, jobs: tuple[Job, ...]) -> Steps:
    """The images that jobs start from, one after the other, with the noise of their first step."""
    made: list[torch.Tensor] = []
    for row in map(state_of, jobs):
        made.append((yield from _points(functools.partial(_started, parts, row))))
        yield None
    for job, latents in zip(jobs, made, strict=True):
        row = state_of(job)
        row.latents, row.init = latents, None


def evaluate(
    parts: Components, preview: PreviewMap, jobs: tuple[Job, ...], decision: Decision, apart: bool
) -> Steps:
    """One model evaluation of each row, and the predicted steps after it; `apart` as in `denoise.evaluate`.
    A row for which the model computes NaN fails alone."""
    rows = [state_of(job) for job in jobs]
    evaluated = yield from _points(lambda: denoise.evaluate(parts.backbone, rows, decision, apart))
    emissions: list[Emission] = []
    for job, row, result in zip(jobs, rows, evaluated, strict=True):
        if not result.finite:
            row.done = True
            emissions.append(Emission(job, _broken(row)))
            continue
        shown = denoise.advance(row, result)
        if shown is not None:
            emissions.append(Emission(job, _preview(preview, row, shown)))
    yield from emissions


def decode(parts: Components, jobs: tuple[Job, ...]) -> Steps:
    """The finished pictures, one after the other: a VAE gains nothing from batches."""
    rows = [state_of(job) for job in jobs]
    pictures: list[ByteArray | None] = []
    for row in rows:
        pictures.append((yield from _points(functools.partial(_decoded, parts, row))))
        yield None
    emissions: list[Emission] = []
    for job, row, picture in zip(jobs, rows, pictures, strict=True):
        row.done = True
        if picture is None:
            emissions.append(Emission(job, _broken(row)))
            continue
        image = RawImage(picture, (row.plan.width, row.plan.height), row.plan.steps, row.plan.steps, True)
        usage = Usage(evaluations=row.evaluations - row.first - row.skipped, evaluations_skipped=row.skipped)
        done = Done(FinishReason.STOP, usage, quality=row.quality)
        emissions += [Emission(job, image), Emission(job, done)]
    yield from emissions


def _started(parts: Components, row: ImageState) -> torch.Tensor:
    assert row.init is not None
    return row.init.latents(parts.vae, row.sampler, row.first, row.latents)


def _encoded(parts: Components, passes: list[Pass], loras: list[Weights]) -> list[Conditioning]:
    with applied(loras, parts.device):
        return parts.backbone.encode(passes)


def _decoded(parts: Components, row: ImageState) -> ByteArray | None:
    """The picture (height, width, 3), None where the VAE computes NaN; a band at a time."""
    pixels = parts.vae.decode(row.latents)
    picture = np.empty((row.plan.height, row.plan.width, 3), np.uint8)
    rows = max(1, BAND_PIXELS // row.plan.width)
    for first in range(0, row.plan.height, rows):
        point()
        band = pixels[0, :, first : first + rows].float()
        if not torch.isfinite(band).all():
            return None
        picture[first : first + rows] = to_bytes(band.permute(1, 2, 0))
    return picture


def _points(call: Callable[[], T]) -> Generator[None, None, T]:
    """The call's preemption points, as those of the slice."""
    return (yield from interruptible(call))


def _preview(preview: PreviewMap, row: ImageState, shown: denoise.Shown) -> RawImage:
    clean = predicted_clean(row.sampler, shown.step, shown.model_input, shown.output)
    size = (row.plan.width, row.plan.height)
    step = min(shown.step + 1, row.plan.steps)
    return RawImage(preview.picture(clean), size, step, row.plan.steps, False)


def _broken(row: ImageState) -> Failed:
    message = f"the model computed numbers that are not finite at step {min(row.step + 1, row.plan.steps)}"
    return Failed("ModelBroken", message)
