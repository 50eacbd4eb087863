"""Draws pictures with an image pipeline, slice by slice, without a server: for benchmarks of the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from pipelines.contract import Budget, Emission, Job, RawImage
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.image.state import ImageState, state_of
from pipelines.messages import Done, ImageRequest, JobClass

ROWS = 8
T = TypeVar("T")
EVERYTHING = Budget(1e9, 25.0)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Of some captions: latents (n, channels, height, width), pixels (n, height, width, 3), and for each the
    full evaluations and the steps that were predicted. seconds: of the thread's processor time, for all."""

    latents: torch.Tensor
    pixels: torch.Tensor
    evaluations: list[int]
    skipped: list[int]
    seconds: float


class Runs:
    """One model folder, loaded with one strategy. Picture i of a call has the seed `first_seed + i`."""

    def __init__(self, folder: Path, strategy: str = "calibrated") -> None:
        settings = ImageSettings(step_cache=strategy, max_rows=ROWS, max_jobs=512)
        self.pipeline = ImagePipeline.load(folder, name="image", settings=settings)
        self.guidance = self.pipeline.prepare(ImageRequest("any"), None).guidance
        self._next = 0

    def draw(
        self,
        captions: Sequence[str],
        *,
        level: str = "off",
        steps: int = 0,
        scheduler: str = "",
        first_seed: int = 0,
        preview_every: int = 0,
        edit: Callable[[ImageState], None] | None = None,
        together: int = ROWS,
    ) -> Drawn:
        """The pictures of these captions, `together` at a time. edit: changes a state before its first
        slice. steps may exceed what a request may ask for."""
        jobs: list[Job] = []
        chunks: dict[int, list[object]] = {}
        latents: list[torch.Tensor] = []
        begin = time.thread_time()
        for start in range(0, len(captions), together):
            part: list[Job] = []
            for index in range(start, min(start + together, len(captions))):
                request = ImageRequest(
                    captions[index],
                    seed=first_seed + index,
                    scheduler=scheduler,
                    cache_level=level,
                    preview_every=preview_every,
                )
                job = self._admit(request, steps)
                if edit is not None:
                    edit(state_of(job))
                part.append(job)
                chunks[job.id] = []
            self._finish(part, lambda each: chunks[each.job.id].append(each.chunk))
            latents += [state_of(job).latents for job in part]
            for job in part:
                self.pipeline.release(job)
            jobs += part
        seconds = time.thread_time() - begin
        pictures = [_only(chunks[job.id], RawImage) for job in jobs]
        dones = [_only(chunks[job.id], Done) for job in jobs]
        return Drawn(
            torch.cat(latents),
            torch.from_numpy(np.stack([picture.pixels for picture in pictures])),
            [done.usage.evaluations for done in dones],
            [done.usage.evaluations_skipped for done in dones],
            seconds,
        )

    def latents(
        self,
        captions: Sequence[str],
        *,
        steps: int,
        first_seed: int,
        edit: Callable[[ImageState], None],
    ) -> torch.Tensor:
        """As `draw`, all together and without decoding them."""
        jobs: list[Job] = []
        for index, caption in enumerate(captions):
            jobs.append(self._admit(ImageRequest(caption, seed=first_seed + index), steps))
            edit(state_of(jobs[-1]))
        self._finish(jobs, lambda _: None, decode=False)
        made = torch.cat([state_of(job).latents for job in jobs])
        for job in jobs:
            self.pipeline.release(job)
        return made

    def _admit(self, request: ImageRequest, steps: int) -> Job:
        self._next += 1
        job = Job(self._next, "image", "local", JobClass.STANDARD, request)
        plan = self.pipeline.prepare(request, None)
        self.pipeline.admit(job, replace(plan, steps=steps or plan.steps))
        return job

    def _finish(self, jobs: list[Job], keep: Callable[[Emission], None], decode: bool = True) -> None:
        while ready := [
            job for job in jobs if self.pipeline.ready(job) and (decode or state_of(job).phase != "decode")
        ]:
            batch = self.pipeline.plan(iter(ready), EVERYTHING)
            assert batch is not None
            for step in self.pipeline.run(batch):
                if step is not None:
                    keep(step)
            self.pipeline.observe(batch, 1.0)


def _only(chunks: list[object], kind: type[T]) -> T:
    """The last of that kind. Raises: StopIteration where the job failed."""
    return next(chunk for chunk in reversed(chunks) if isinstance(chunk, kind))
