"""The engines that `benchmarks.text_engine` compares: ours and transformers', in one process, greedily.

An engine gets prompts of token ids with an answer's length each, and says when each token of each answer
was there. Speculation is off: random weights repeat themselves and would fake its gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from pipelines.contract import Budget, Job
from pipelines.messages import JobClass, Sampling, TextRequest
from pipelines.text.pipeline import TextPipeline
from pipelines.text.requests import PreparedPrompt
from pipelines.text.settings import TextSettings

BUDGET = Budget(slice_ms=50.0, gap_ms=25.0)
UNBOUNDED = Budget(slice_ms=1e9, gap_ms=1e9)


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt, how many tokens shall answer it, and when it arrives (seconds after the start)."""

    prompt: tuple[int, ...]
    tokens: int
    at_s: float = 0.0


@dataclass(slots=True)
class Told:
    """When the tokens of each ask were there, seconds after the start."""

    times: list[list[float]]
    began: float = field(default_factory=time.perf_counter)

    def note(self, row: int, tokens: int = 1) -> None:
        self.times[row] += [time.perf_counter() - self.began] * tokens

    @property
    def seconds(self) -> float:
        """Until the last token of all."""
        return max(row[-1] for row in self.times)


Engine = Callable[[Sequence[Ask]], Told]


def told(asks: Sequence[Ask]) -> Told:
    """Nothing yet; the clock runs."""
    return Told([[] for _ in asks])


class Ours:
    """The text pipeline, driven as the executor drives it, without preemption. chunked: long prompts are cut
    so that a slice keeps its budget; otherwise a slice takes all of them."""

    def __init__(self, folder: Path, dtype: str, *, chunked: bool = True) -> None:
        most = TextSettings().max_chunk if chunked else 1 << 20
        settings = TextSettings(dtype=dtype, prefix_reuse=False, drafters=(), max_chunk=most)
        self._pipeline = TextPipeline.load(folder, name=folder.name, settings=settings)
        self._budget = BUDGET if chunked else UNBOUNDED

    @torch.inference_mode()
    def __call__(self, asks: Sequence[Ask]) -> Told:
        waiting = sorted(enumerate(asks), key=lambda pair: pair[1].at_s)
        running: dict[int, Job] = {}
        found = told(asks)
        while waiting or running:
            now_s = time.perf_counter() - found.began
            while waiting and waiting[0][1].at_s <= now_s:
                row, ask = waiting.pop(0)
                running[row] = self._admitted(row, ask)
            if not running:
                time.sleep(waiting[0][1].at_s - now_s)
                continue
            self._slice(running, found)
        return found

    def _admitted(self, row: int, ask: Ask) -> Job:
        request = TextRequest(sampling=Sampling(max_tokens=ask.tokens))
        job = Job(row, self._pipeline.info.name, "local", JobClass.INTERACTIVE, request)
        self._pipeline.admit(job, self._pipeline.prepare(request, None))
        self._pipeline.update(job, PreparedPrompt(1, ask.prompt, final=True))
        return job

    def _slice(self, running: dict[int, Job], found: Told) -> None:
        before = {row: max(0, job.state.drawn) for row, job in running.items()}
        batch = self._pipeline.plan(list(running.values()), self._budget)
        assert batch is not None
        began = time.perf_counter()
        for _ in self._pipeline.run(batch):
            pass
        self._pipeline.observe(batch, 1000 * (time.perf_counter() - began))
        for row, job in list(running.items()):
            found.note(row, max(0, job.state.drawn) - before[row])
            if job.state.finished:
                self._pipeline.release(running.pop(row))


class _Clock(StoppingCriteria):  # type: ignore[misc]  # untyped
    """Notes each step of `generate` for the rows that still want tokens."""

    def __init__(self, asks: Sequence[Ask], found: Told) -> None:
        self._asks = asks
        self._found = found

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        for row, ask in enumerate(self._asks):
            if len(self._found.times[row]) < ask.tokens:
                self._found.note(row)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


class Generate:
    """transformers' `generate`, eager, or compiled over a static cache. Rows are padded on the left; asks
    that arrive later wait until the batch in progress has ended, and then go together."""

    def __init__(self, folder: Path, dtype: str, *, compiled: bool = False) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self._options: dict[str, Any] = {}
        if compiled:
            self._model.forward = torch.compile(self._model.forward)
            self._options = {"cache_implementation": "static"}

    @torch.inference_mode()
    def __call__(self, asks: Sequence[Ask]) -> Told:
        found = told(asks)
        waiting = sorted(range(len(asks)), key=lambda row: asks[row].at_s)
        while waiting:
            now_s = time.perf_counter() - found.began
            here = [row for row in waiting if asks[row].at_s <= now_s]
            if not here:
                time.sleep(asks[waiting[0]].at_s - now_s)
                continue
            waiting = [row for row in waiting if row not in here]
            part = Told([found.times[row] for row in here], found.began)
            self._batch([asks[row] for row in here], part)
        return found

    def _batch(self, asks: Sequence[Ask], found: Told) -> None:
        width = max(len(ask.prompt) for ask in asks)
        ids = torch.tensor([[0] * (width - len(ask.prompt)) + list(ask.prompt) for ask in asks])
        seen = torch.tensor([[0] * (width - len(ask.prompt)) + [1] * len(ask.prompt) for ask in asks])
        self._model.generate(
            ids,
            attention_mask=seen,
            max_new_tokens=max(ask.tokens for ask in asks),
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([_Clock(asks, found)]),
            **self._options,
        )


class ContinuousBatching:
    """transformers' `generate_batch`. It takes everything at once, so late asks are given at the start: a
    head start for it."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        ).eval()

    def __call__(self, asks: Sequence[Ask]) -> Told:
        longest = max(ask.tokens for ask in asks)
        config = GenerationConfig(max_new_tokens=longest, do_sample=False, eos_token_id=-1, pad_token_id=0)
        # Left to itself it takes most of a GPU's memory, and on a CPU of the machine's.
        memory = ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=1024, max_requests_per_batch=32)
        found = told(asks)
        made = self._model.generate_batch(
            [list(ask.prompt) for ask in asks], generation_config=config, continuous_batching_config=memory
        )
        if len(made) != len(asks):
            raise RuntimeError(f"generate_batch answered {len(made)} of {len(asks)} prompts")
        for row, ask in enumerate(asks):
            found.note(row, ask.tokens)
        return found
