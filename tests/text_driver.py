"""Tiny random models in Hugging Face folders, and a driver that runs a pipeline without an executor."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from pipelines.contract import Batch, Budget, Emission, Job
from pipelines.messages import (
    Done,
    Failed,
    JobClass,
    Message,
    PromptRevision,
    Sampling,
    TextRequest,
    TokenChunk,
)
from pipelines.text.pipeline import TextPipeline

BUDGET = Budget(slice_ms=50.0, gap_ms=25.0)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CORPUS = [
    "the quick brown fox jumps over the lazy dog and asks how many apples are left",
    "wieviel Äpfel, größer als süß; où est l'été? 你好世界 🙂🙃 naïve café",
    "one two three four five six seven eight nine ten; what is seven plus five?",
]


def make_tokenizer(vocab: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


class Folders:
    """Saved random models, made once for equal overrides of the config of `family` ("llama")."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, Path] = {}

    def __call__(self, *, seed: int = 0, shards: bool = False, **overrides: Any) -> Path:
        key = repr((seed, shards, sorted(overrides.items())))
        if key not in self._made:
            self._made[key] = _save(self._root / str(len(self._made)), seed, shards, overrides)
        return self._made[key]


def _save(path: Path, seed: int, shards: bool, overrides: dict[str, Any]) -> Path:
    tokenizer = make_tokenizer(320)
    shape: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.3,
    }
    config = shape | overrides
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("family", "llama"), **config))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name or "bias" in name:
                tensor.add_(torch.randn_like(tensor) * 0.1)
    model.save_pretrained(path, max_shard_size="20KB" if shards else "1GB")
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (path / "tokenizer_config.json").write_text('{"bos_token": "<|begin|>", "eos_token": "<|end|>"}')
    return path


@dataclass
class Driver:
    """Runs a pipeline as an executor without preemption would."""

    pipeline: TextPipeline
    jobs: list[Job] = field(default_factory=list)
    emitted: dict[int, list[object]] = field(default_factory=dict)
    _prepared: dict[int, object] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    def admit(
        self,
        sampling: Sampling | None = None,
        history: tuple[Message, ...] = (),
        tenant: str = "local",
        job_class: JobClass = JobClass.INTERACTIVE,
        committed: bool = True,
    ) -> Job:
        request = TextRequest(history, sampling or Sampling(max_tokens=16))
        job = Job(next(self._ids), self.pipeline.info.name, tenant, job_class, request, committed=committed)
        self.pipeline.admit(job, self.pipeline.prepare(request, None))
        self.jobs.append(job)
        self.emitted[job.id] = []
        return job

    def revise(
        self,
        job: Job,
        number: int,
        text: str,
        *,
        final: bool = False,
        ahead: int = 0,
        notes: tuple[Message, ...] = (),
    ) -> None:
        revision = PromptRevision(number, text, final, ahead, notes)
        prepared = self.pipeline.prepare(job.request, revision, self._prepared.get(job.id))
        self._prepared[job.id] = prepared
        self.pipeline.update(job, prepared)

    def submit(self, text: str, sampling: Sampling | None = None, **admit: Any) -> Job:
        job = self.admit(sampling, **admit)
        self.revise(job, 1, text, final=True)
        return job

    def plan(self, jobs: list[Job] | None = None, budget: Budget = BUDGET) -> Batch | None:
        live = [job for job in (jobs or self.jobs) if not job.in_slice and self.pipeline.ready(job)]
        return self.pipeline.plan(live, budget)

    def finish(self, batch: Batch) -> None:
        with torch.inference_mode():
            for emission in self.pipeline.run(batch):
                self.take(emission)

    def take(self, emission: Emission | None) -> None:
        if emission is not None:
            self.emitted[emission.job.id].append(emission.chunk)

    def drain(self, jobs: list[Job] | None = None, budget: Budget = BUDGET) -> None:
        """Slices until nothing is ready."""
        while (batch := self.plan(jobs, budget)) is not None:
            self.finish(batch)

    def drain_until_first_token(self, job: Job) -> None:
        """Slices until the job has said something."""
        while not job.state.drawn:
            batch = self.plan()
            assert batch is not None
            self.finish(batch)

    def release(self, job: Job) -> None:
        self.pipeline.release(job)
        self.jobs.remove(job)

    def text(self, job: Job) -> str:
        return "".join(chunk.text for chunk in self.chunks(job))

    def chunks(self, job: Job) -> list[TokenChunk]:
        return [chunk for chunk in self.emitted[job.id] if isinstance(chunk, TokenChunk)]

    def tokens(self, job: Job) -> list[int]:
        """Every token drawn, an end token included."""
        return list(job.state.tokens[job.state.prompt_length :])

    def done(self, job: Job) -> Done:
        last = self.emitted[job.id][-1]
        assert isinstance(last, Done), last
        return last

    def failure(self, job: Job) -> Failed:
        last = self.emitted[job.id][-1]
        assert isinstance(last, Failed), last
        return last


def finished(generator: Generator[None, None, Any]) -> Any:
    """What a generator returns, its yields ignored."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value
