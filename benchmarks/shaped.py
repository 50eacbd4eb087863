"""Pipelines of a given shape with random weights behind the contract: a chat and an image model that need
torch and the executor alone. Each job is a number of equal slices; one row a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from benchmarks.llama import packed, random_decoder
from benchmarks.sdxl_shape import Shape, shaped_unet
from pipelines.contract import Batch, Budget, Emission, Emitted, Estimate, Job
from pipelines.cost import CostModel
from pipelines.messages import (
    Done,
    FinishReason,
    ImageRequest,
    Input,
    ModelInfo,
    Request,
    TextRequest,
    TokenChunk,
    Usage,
)
from pipelines.text.config import ModelConfig

# Layers between two preemption points of the text.
EVERY = 4
PROMPT = 512


@dataclass(slots=True)
class Left:
    """Slices that a job still has, of how many."""

    slices: int
    whole: int


class ShapedPipeline:
    """`slices` says how many a request takes, `work` computes number n of them with preemption points and
    returns what to send, None for nothing. Owner: the executor's thread."""

    def __init__(
        self,
        name: str,
        modality: str,
        slices: Callable[[Request], int],
        work: Callable[[Request, int], Generator[None, None, Emitted | None]],
    ) -> None:
        self._info = ModelInfo(name, modality, "shaped", 0)
        self._slices = slices
        self._work = work
        self._cost = CostModel()

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> object:
        """Nothing to prepare."""
        return request

    def admit(self, job: Job, prepared: object) -> None:
        count = self._slices(job.request)
        job.state = Left(count, count)

    def update(self, job: Job, prepared: object) -> None:
        """There is none."""

    def ready(self, job: Job) -> bool:
        return bool(job.state.slices)

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        rows = tuple(islice(ready, 1))
        if not rows:
            return None
        left: Left = rows[0].state
        first = "first" if left.slices == left.whole else "next"
        return Batch(self._info.name, first, rows, 1.0, left.whole - left.slices)

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        (job,) = batch.rows
        chunk = yield from self._work(job.request, batch.work)
        job.state.slices -= 1
        if chunk is not None:
            yield Emission(job, chunk)
        if not job.state.slices:
            yield Emission(job, Done(FinishReason.STOP, Usage()))

    def estimate(self, batch: Batch) -> Estimate:
        return self._cost.estimate(batch)

    def observe(self, batch: Batch, device_ms: float) -> None:
        self._cost.observe(batch, device_ms)

    def holders(self) -> Iterable[Job]:
        return ()

    def leased(self, job: Job) -> int:
        return 0

    def keeps(self, job: Job, budget: Budget) -> int:
        """Nothing is leased."""
        return 0

    def evict(self, job: Job, keep: int) -> None:
        """Nothing is leased."""

    def release(self, job: Job) -> None:
        """Nothing is held."""


def chat(
    config: ModelConfig, dtype: torch.dtype, device: torch.device, prompts: tuple[int, int]
) -> ShapedPipeline:
    """A prompt, then a token a slice. `prompts`: tokens of a usual prompt, and of one with `stop` strings."""
    decoder = random_decoder(config, dtype, device)
    cache = decoder.new_cache(-(-max(prompts) // 16) * 16 + 16)
    for layer in cache:
        layer.zero_()

    def work(request: Request, number: int) -> Generator[None, None, Emitted | None]:
        assert isinstance(request, TextRequest)
        prompt = prompts[bool(request.sampling.stop)]
        counts, contexts = ([1], [prompt + 1]) if number else ([prompt], [prompt])
        batch = packed(counts, contexts, cache, config.vocab)
        logits = yield from decoder.forward(batch, cache, EVERY)
        assert logits is not None
        return TokenChunk("x", (int(logits.argmax()),))

    def slices(request: Request) -> int:
        assert isinstance(request, TextRequest)
        return request.sampling.max_tokens

    return ShapedPipeline("chat", "text", slices, work)


def image(shape: Shape, dtype: torch.dtype, device: torch.device) -> ShapedPipeline:
    """A guided evaluation a slice, preemptible at every block; the picture itself is not decoded."""
    unet = shaped_unet(shape, dtype, device)
    latents = torch.randn(2, 4, shape.side, shape.side, device=device).to(dtype)
    text = torch.randn(2, 77, shape.text, device=device).to(dtype)
    times = torch.full((2,), 500.0, device=device)

    def work(request: Request, number: int) -> Generator[None, None, Emitted | None]:
        output = yield from unet.steps(latents, times, text)
        assert isinstance(request, ImageRequest)
        if number == request.steps - 1:
            output.sum().item()  # the picture is there when the device has made it
        return None

    def slices(request: Request) -> int:
        assert isinstance(request, ImageRequest)
        return request.steps

    return ShapedPipeline("image", "image", slices, work)
