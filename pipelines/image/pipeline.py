"""Images: continuous batching of diffusion at the grain of one model evaluation.

A job goes through these kinds of slice: "start" (the image that it starts from, if any), "encode" (its
prompts, once), "denoise" (one model evaluation, for as many rows of the same size as the budget allows,
whatever their step, and the steps that their caches predict after it), "shallow" (the same with a part of
the network, where a cache wants that), "decode" (the VAE). A row joins at any evaluation and leaves after
its last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import torch

from pipelines.contract import Batch, Budget, Emission, Estimate, Job
from pipelines.cost import UNKNOWN, CostModel
from pipelines.errors import Exhausted, InvalidRequest
from pipelines.image import slices
from pipelines.image.affordable import affordable
from pipelines.image.fused import fuse
from pipelines.image.loader import Components, load_components
from pipelines.image.points import make_preemptible
from pipelines.image.preview import fit_preview
from pipelines.image.request import Checker, ImagePlan
from pipelines.image.samplers import adds_noise, first_step
from pipelines.image.settings import ImageSettings
from pipelines.image.start import draw
from pipelines.image.state import ImageState, state_of
from pipelines.image.step_cache.base import Decision
from pipelines.image.step_cache.levels import StepCaches
from pipelines.image.step_cache.masks import Masks, read_masks
from pipelines.image.step_cache.shallow import split
from pipelines.image.step_cache.text import keep_text_projections
from pipelines.limits import MAX_STEPS
from pipelines.messages import ImageRequest, Input, ModelInfo, Request

_LEAST_WAIT_S: Final = 0.5
_LOOK_AHEAD: Final = 64
_WORTH_TWO_CALLS: Final = 0.9
_EVALUATIONS: Final = {"denoise": Decision.FULL, "shallow": Decision.PARTIAL}


class ImagePipeline:
    """One diffusion model behind `pipelines.contract.Pipeline`. Owner: the executor thread, but for
    `prepare`, which any thread may call."""

    def __init__(
        self, name: str, parts: Components, settings: ImageSettings, masks: Masks | None = None
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._checker = Checker(parts, settings)
        self._preview = fit_preview(parts.vae)
        self._jobs: dict[int, Job] = {}
        self._cost = CostModel()
        self._info = ModelInfo(
            name=name,
            modality="image",
            family=parts.family,
            parameters=parts.parameters,
            context_tokens=parts.backbone.context_tokens,
            sizes=(parts.own_size,),
            max_steps=parts.sampling.most_steps("", MAX_STEPS),
            default_steps=parts.defaults.steps,
            schedulers=parts.sampling.names,
            loras=parts.loras.names,
            control=parts.backbone.control is not None,
            places=settings.max_jobs,
        )
        share = split(parts.backbone.network)
        self._caches = StepCaches(settings.step_cache, masks, share)
        keep_text_projections(parts.backbone.network)
        make_preemptible(*parts.modules)
        if parts.device.type == "cuda":
            for module in parts.modules:
                fuse(module)

    @classmethod
    def load(cls, folder: Path, *, name: str, settings: ImageSettings | None = None) -> ImagePipeline:
        """The model in `folder` (Stable Diffusion's layout).

        Raises: Unsupported naming the class; ModelBroken naming the file at fault.
        """
        settings = settings or ImageSettings()
        with torch.inference_mode():
            return cls(name, load_components(folder, settings), settings, read_masks(folder))

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def refused_loras(self) -> Mapping[str, str]:
        """Add-ons that do not fit this model, with the reason."""
        return self._parts.loras.refused

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> ImagePlan:
        """Off the executor thread: checks and tokenises.

        Raises: InvalidRequest naming the field and its limit, Unsupported naming the option.
        """
        if not isinstance(request, ImageRequest):
            raise InvalidRequest("model", f"{self._info.name} draws and takes no {type(request).__name__}")
        if value is not None:
            raise InvalidRequest("image", f"an image takes no later input, and no {type(value).__name__}")
        return self._checker.plan(request)

    def admit(self, job: Job, prepared: object) -> None:
        """Raises: Exhausted where `max_jobs` are at work. Those ahead of their commit count against
        their like only: they never keep committed work out."""
        assert isinstance(prepared, ImagePlan)
        alike = sum(1 for other in self._jobs.values() if other.committed == job.committed)
        if alike >= self._settings.max_jobs:
            raise Exhausted(
                f"{self._info.name} works on {self._settings.max_jobs} images already",
                retry_after_s=self._next_free_s(),
            )
        load = 1.0 if job.pressed else len(self._jobs) / self._settings.max_jobs
        plan, quality = affordable(prepared, load)
        job.state = self._state(plan, quality)
        self._jobs[job.id] = job

    def update(self, job: Job, prepared: object) -> None:
        """Raises: InvalidRequest, always: `prepare` has refused already."""
        raise InvalidRequest("image", "an image takes no later input")

    def ready(self, job: Job) -> bool:
        """Until it is done: nothing is waited for."""
        return not state_of(job).done

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        """The most urgent row's next slice, with riders of the same kind and size inside the budget.

        Rows that could share the next evaluation but have no embeddings yet are encoded before it.
        """
        rows = list(islice(ready, _LOOK_AHEAD))
        if not rows:
            return None
        kind = state_of(rows[0]).phase
        batch = self._grow(kind, rows, budget)
        if kind in _EVALUATIONS:
            return self._newcomers(batch, rows, budget) or self._apart(batch)
        return batch

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        """One slice. A row for which the model computes NaN fails alone."""
        if batch.kind == "start":
            return slices.start(self._parts, batch.rows)
        if batch.kind == "encode":
            return slices.encode(self._parts, batch.rows)
        if batch.kind in _EVALUATIONS:
            kind = _EVALUATIONS[batch.kind]
            return slices.evaluate(self._parts, self._preview, batch.rows, kind, batch.work is not None)
        return slices.decode(self._parts, batch.rows)

    def estimate(self, batch: Batch) -> Estimate:
        found = [self._cost.estimate(call) for call in _calls(batch)]
        if len(found) == 1:
            return found[0]
        return Estimate(sum(each.median_ms for each in found), sum(each.p90_ms for each in found))

    def observe(self, batch: Batch, device_ms: float) -> None:
        """Two calls are learned of as two, in proportion to their size."""
        for call in _calls(batch):
            self._cost.observe(call, device_ms * call.units / max(batch.units, 1e-9))

    def holders(self) -> Iterable[Job]:
        return self._jobs.values()

    def leased(self, job: Job) -> int:
        """Bytes of the conditioning and of what was computed of it, which can be made again; latents and
        what a step cache remembers are kept."""
        state = state_of(job)
        return sum(each.bytes for each in state.conditioning or ()) + state.text_bytes

    def keeps(self, job: Job, budget: Budget) -> int:
        """Nothing: embeddings are made from the prompt in one short call."""
        return 0

    def evict(self, job: Job, keep: int) -> None:
        """The conditioning goes; the job's next slice makes it again."""
        state_of(job).conditioning = None
        state_of(job).forget_texts()

    def release(self, job: Job) -> None:
        del self._jobs[job.id]
        job.state = None

    # --- planning ---------------------------------------------------------------------------------------

    def _grow(self, kind: str, rows: list[Job], budget: Budget) -> Batch:
        """The first row, and those behind it that fit."""
        batch = self._batch(kind, (rows[0],))
        for job in rows[1:]:
            if len(batch.rows) >= self._settings.max_rows:
                break
            if state_of(job).phase != kind or not _same_size(rows[0], job):
                continue
            wider = self._batch(kind, (*batch.rows, job))
            if not self._fits(wider, budget):
                break
            batch = wider
        return batch

    def _newcomers(self, batch: Batch, rows: list[Job], budget: Budget) -> Batch | None:
        """A slice that brings the rows nearer that could then ride along with `batch`."""
        riders: list[Job] = []
        for job in rows[1:]:
            if state_of(job).phase not in ("start", "encode") or not _same_size(rows[0], job):
                continue
            together = self._batch(batch.kind, (*batch.rows, *riders, job))
            if len(together.rows) > self._settings.max_rows or not self._fits(together, budget):
                break
            riders.append(job)
        return self._grow(state_of(riders[0]).phase, riders, budget) if riders else None

    def _apart(self, batch: Batch) -> Batch:
        """Guidance in two calls of the network where those are cheaper by a tenth, as they may be at sizes
        where one row fills the device: `work` is then what each of them holds, and a replay does the same.
        Before anything is known, both cost the same."""
        guided = [state for state in map(state_of, batch.rows) if state.plan.guided]
        if not guided:
            return batch
        negative = sum(_units(batch.kind, state) / 2 for state in guided)
        split = replace(batch, work=(negative, batch.units - negative))
        cheaper = self.estimate(split).median_ms < _WORTH_TWO_CALLS * self.estimate(batch).median_ms
        return split if cheaper else batch

    def _fits(self, batch: Batch, budget: Budget) -> bool:
        estimate = self._cost.estimate(batch)
        rides = batch.rows[-1].rank > batch.rows[0].rank
        most_ms = budget.gap_ms if rides else budget.slice_ms
        return estimate is not UNKNOWN and estimate.p90_ms <= most_ms

    def _batch(self, kind: str, rows: tuple[Job, ...]) -> Batch:
        return Batch(self._info.name, kind, rows, sum(_units(kind, state_of(job)) for job in rows))

    # --- admission --------------------------------------------------------------------------------------

    def _state(self, plan: ImagePlan, quality: str) -> ImageState:
        """Before the first slice."""
        parts = self._parts
        first = 0
        if plan.init is not None:
            first = first_step(parts.sampling.class_of(plan.sampler), plan.steps, plan.strength)
        patches = parts.patches(plan.width, plan.height)
        sampler = parts.sampling.new(plan.sampler, plan.steps, first, patches)
        start = draw(plan, parts.vae, parts.device)
        latents = start.latents
        if start.init is None:
            latents = latents * float(getattr(sampler, "init_noise_sigma", 1.0))
        level = "off" if adds_noise(sampler) else plan.cache_level
        cache = self._caches.cache(level, plan.steps, first)
        return ImageState(
            plan, sampler, latents, start.generator, start.init, first, cache, step=first, quality=quality
        )

    def _next_free_s(self) -> float:
        """When the job with the least left to do will be done, if all that are here share the device."""
        left = []
        for job in self._jobs.values():
            state = state_of(job)
            step_ms = self._cost.estimate(self._batch("denoise", (job,))).median_ms
            left.append(state.work_left * step_ms / 1000)
        return max(_LEAST_WAIT_S, min(left) * len(left))


def _same_size(one: Job, other: Job) -> bool:
    a, b = state_of(one).plan, state_of(other).plan
    return (a.width, a.height) == (b.width, b.height)


def _calls(batch: Batch) -> list[Batch]:
    """One, or those of the negative prompts and of the prompts."""
    return [replace(batch, units=units) for units in batch.work] if batch.work else [batch]


def _units(kind: str, state: ImageState) -> float:
    """start, decode: pixels; encode: prompts; denoise, shallow: U-Net inputs times latent positions."""
    if kind == "encode":
        return float(state.inputs)
    if kind in _EVALUATIONS:
        return float(state.inputs * state.latents.shape[2] * state.latents.shape[3])
    return float(state.plan.width * state.plan.height)
