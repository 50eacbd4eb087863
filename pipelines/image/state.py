"""The durable state of an image job: what its commits have made so far."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch

from pipelines.contract import Job
from pipelines.image.backbones.base import Conditioning
from pipelines.image.request import ImagePlan
from pipelines.image.samplers import model_input
from pipelines.image.start import InitImage
from pipelines.image.step_cache.base import CacheState, Decision, Observation, StepCache
from pipelines.image.step_cache.call import Projections
from pipelines.image.step_cache.schedule import Schedule
from pipelines.image.updates import Update, updates


@dataclass(slots=True, eq=False)
class ImageState:
    """Owner: the executor thread; written in commits only.

    latents: float32 (1, channels, height, width), noise at first. conditioning: of one pass or of two
    (negative prompt, prompt), None before it is made and after an eviction. step: steps committed so far,
    counted from `first`; skipped: those of them that were predicted, in whole or in part. generator: of the
    sampler's noise. init: the image to start from, until it is in the latents. cache: the strategy, None
    where every step is computed; remembered: what it remembers of this row. clean: the clean image by the
    last step, where the next one asks for it. texts: keys and values of the prompts, for each pass, None
    before the first evaluation and after an eviction. quality: "full", or what
    was lowered at admission. updates: of all steps, None where the sampler itself has to take them.
    """

    plan: ImagePlan
    sampler: Any
    latents: torch.Tensor
    generator: torch.Generator
    init: InitImage | None = None
    first: int = 0
    cache: StepCache | None = None
    conditioning: tuple[Conditioning, ...] | None = None
    texts: tuple[Projections | None, ...] = ()
    remembered: CacheState | None = None
    clean: torch.Tensor | None = None
    step: int = 0
    skipped: int = 0
    done: bool = False
    quality: str = "full"
    schedule: Schedule = field(init=False)
    updates: tuple[Update, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        self.take(self.sampler)
        self.forget_texts()

    def take(self, sampler: Any) -> None:
        """Steps by this sampler, from the first one on."""
        self.sampler = sampler
        self.schedule = Schedule.of(sampler)
        self.updates = updates(sampler, self.first)

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
        if self.conditioning is None:
            return "encode"
        return "shallow" if self.decision is Decision.PARTIAL else "denoise"

    @property
    def inputs(self) -> int:
        """Rows that this job puts into the network."""
        return len(self.plan.passes)

    @property
    def model_input(self) -> torch.Tensor:
        """The latents, scaled for the network, float32."""
        if self.updates is not None:
            scale = self.updates[self.step].scale
            return self.latents if scale == 1.0 else self.latents * scale
        return model_input(self.sampler, self.latents, self.step)

    def conditioning_of(self, which: int) -> Conditioning:
        """0: the negative prompt's, if there is one; -1: the prompt's."""
        assert self.conditioning is not None
        return self.conditioning[which]

    @property
    def preview_due(self) -> bool:
        """Every `preview_every` steps, but not for the last: the image itself follows."""
        every, made = self.plan.preview_every, self.step + 1
        return every > 0 and made % every == 0 and made < self.evaluations

    # --- the step cache ---------------------------------------------------------------------------------

    @property
    def decision(self) -> Decision:
        """How the next step is done. What was remembered under another plan counts for nothing."""
        if self.cache is None:
            return Decision.FULL
        return self.cache.decide(self.schedule, self.key, self.remembered, self.step)

    @property
    def key(self) -> Hashable:
        """What a cache's memory depends on beside the latents."""
        plan = self.plan
        return plan.width, plan.height, plan.steps, plan.guidance, plan.sampler, plan.loras

    @property
    def wants_deep(self) -> bool:
        """Whether a full evaluation of this row has to keep what the deep part said."""
        return self.cache is not None and self.cache.wants_deep

    @property
    def work_left(self) -> float:
        """Full evaluations' worth of work, at most."""
        if self.cache is None:
            return float(self.evaluations - self.step)
        return self.cache.evaluations(self.schedule, self.remembered, self.step)

    def observe(self, seen: Observation) -> None:
        """A full evaluation at this step."""
        if self.cache is not None:
            self.remembered = self.cache.observe(self.schedule, self.key, self.remembered, self.step, seen)

    def predicted(self) -> torch.Tensor:
        """The network's output at this step, as the cache predicts it."""
        assert self.cache is not None and self.remembered is not None
        return self.cache.predict(self.schedule, self.remembered, self.step, self.model_input)

    def predicted_deep(self) -> torch.Tensor:
        """What the deep part would say at this step: (inputs, ...)."""
        assert self.cache is not None and self.remembered is not None
        return self.cache.deep(self.schedule, self.remembered, self.step)

    def keep_texts(self, new: tuple[Projections | None, ...]) -> None:
        """What an evaluation has computed of the prompts."""
        self.texts = tuple(fresh or old for fresh, old in zip(new, self.texts, strict=True))

    @property
    def text_bytes(self) -> int:
        """Memory of `texts`."""
        kept = (value for each in self.texts if each is not None for value in each.values())
        return sum(value.numel() * value.element_size() for value in kept)

    def forget_texts(self) -> None:
        """The next evaluation computes them again."""
        self.texts = (None,) * self.inputs


def state_of(job: Job) -> ImageState:
    """The state that `admit` set."""
    assert isinstance(job.state, ImageState)
    return job.state
