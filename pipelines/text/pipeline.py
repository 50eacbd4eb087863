"""The text pipeline: a folder of Llama or a relative behind `pipelines.contract.Pipeline`.

One slice computes some new tokens of some jobs in one packed forward pass and commits once: the KV of all of
them and, for each job whose prompt is complete, one token and the drafted ones in front of it that proved
right. See `planner` for what goes into a slice, `kv_cache` for where it is kept, `state` for what a job is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import torch

from kernels import Drawn, RowSampling, draw
from pipelines.contract import Batch, Budget, Emission, Estimate, Job, Pressure
from pipelines.cost import UNKNOWN, CostModel
from pipelines.errors import Exhausted, InvalidRequest
from pipelines.messages import Input, ModelInfo, PromptRevision, Request, TextRequest
from pipelines.text.captured import spare_tokens, stepper
from pipelines.text.commit import Committer
from pipelines.text.config import ModelConfig, load_config
from pipelines.text.constraint import Constraints
from pipelines.text.loader import load_weights
from pipelines.text.memory import KvMemory, context_tokens, pool_tokens, slots_for, token_bytes
from pipelines.text.model import Decoder
from pipelines.text.packing import draws, pack
from pipelines.text.planner import Planner, Row, Work
from pipelines.text.prefix_index import root_key
from pipelines.text.requests import PreparedPrompt, PreparedRequest, check_request, prepare_prompt
from pipelines.text.settings import WEIGHTS, TextSettings
from pipelines.text.speculation.asking import Asking
from pipelines.text.speculation.draft_model import KIND, DraftModel
from pipelines.text.speculation.drafting import Drafting
from pipelines.text.speculation.verifier import questions
from pipelines.text.state import TextState
from pipelines.text.stream import TextStream
from pipelines.text.swap import EVICT, RESTORE, Restore, Swap
from pipelines.text.tokenizer import ChatTokenizer

# Scores in one call of the sampler on CPU, a few milliseconds; on a GPU all rows share one transfer.
_DRAWN_SCORES = 1 << 17
# The work of a slice that only says that an answer, complete before its commit, has ended.
END = None


class TextPipeline:
    """One loaded text model. Owner: the executor thread, but for `prepare`."""

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        decoder: Decoder,
        tokenizer: ChatTokenizer,
        settings: TextSettings,
        draft: DraftModel | None = None,
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._settings = settings
        self._cost = CostModel()
        self._planner = Planner(name, config, self._cost, settings.max_rows, settings.max_chunk)
        models = (config,) if draft is None else (config, draft.config)
        tokens = pool_tokens(config, token_bytes(decoder.dtype, *models), settings)
        slots = slots_for(tokens + spare_tokens(decoder))
        windows = frozenset(config.windows)
        self._memory = KvMemory(decoder.new_cache(slots), windows, prefix_reuse=settings.prefix_reuse)
        self._decoder = stepper(decoder, self._memory, settings.max_rows)
        self._swap = Swap(name, self._memory, self._cost, self._planner.prompt_ms)
        self._draft = draft
        asking = Asking(name, draft) if draft is not None else None
        self._drafting = Drafting(
            settings.drafters, asking, config.vocab, config.eos, config.context, settings.max_chunk
        )
        self._constraints = Constraints(tokenizer, config.vocab, config.eos)
        self._committer = Committer(name, tokenizer, config.eos, config.context, self._memory.index)
        on_cpu = torch.device(settings.device).type == "cpu"
        self._drawn_at_once = max(1, _DRAWN_SCORES // config.vocab) if on_cpu else settings.max_rows
        self._admitted: dict[int, Job] = {}
        self._info = ModelInfo(
            name=name,
            modality="text",
            family=config.family,
            parameters=config.parameters,
            context_tokens=config.context,
            places=settings.max_jobs,
        )

    @classmethod
    def load(cls, folder: Path, *, name: str, settings: TextSettings) -> TextPipeline:
        """Load a Hugging Face folder: config.json, safetensors, tokenizer.json, chat template.

        Raises: ModelBroken naming the file, Unsupported naming the config's field, ValueError naming the
        setting.
        """
        config = load_config(folder)
        dtype: torch.dtype = getattr(torch, settings.dtype)
        models = (config, load_config(Path(settings.draft))) if settings.draft else (config,)
        each = token_bytes(dtype, *models)
        config = replace(config, context=context_tokens(config, each, settings))
        tokenizer = ChatTokenizer(folder, config.vocab)
        bits = WEIGHTS[settings.weights]
        weights = load_weights(folder, config, dtype, torch.device(settings.device), bits)
        decoder = Decoder(config, weights)
        draft = None
        if settings.draft:
            tokens = pool_tokens(config, each, settings)
            draft = DraftModel.load(Path(settings.draft), config, tokenizer, tokens, settings)
        return cls(name, config, decoder, tokenizer, settings, draft)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> object:
        """The checked request, or a revision as token ids. Thread-safe.

        Raises: InvalidRequest, Unsupported.
        """
        if not isinstance(request, TextRequest):
            raise InvalidRequest("model", f"{self._info.name} is a text model")
        if value is None:
            check_request(request, self._config.vocab, self._config.context)
            constraint = self._constraints.of(request.sampling, tenant, request.cache_scope)
            return PreparedRequest(request, constraint)
        if not isinstance(value, PromptRevision):
            raise InvalidRequest("input", "a text model takes prompt revisions")
        known = before.encoded if isinstance(before, PreparedPrompt) else None
        return prepare_prompt(self._tokenizer, request, value, self._config.context, known)

    def admit(self, job: Job, prepared: object) -> None:
        """Raises: Exhausted when `max_jobs` are admitted. Those that run ahead of their commit count against
        their like only: they never keep committed work out."""
        assert isinstance(prepared, PreparedRequest)
        request = prepared.request
        alike = sum(1 for other in self._admitted.values() if other.committed == job.committed)
        if alike >= self._settings.max_jobs:
            raise Exhausted(
                f"{self._info.name}: {self._settings.max_jobs} jobs are running",
                retry_after_s=self._next_end_s(),
            )
        stream = TextStream(request.sampling.stop, strips_space=self._tokenizer.strips_space)
        keys = [root_key(job.tenant, request.cache_scope)]
        job.state = TextState(request.sampling, self._memory.table(job.id), stream, keys)
        if self._draft is not None:
            job.state.draft_row = self._draft.row()
        if prepared.constraint is not None:
            job.state.constraint = prepared.constraint.copy()
        self._admitted[job.id] = job

    def update(self, job: Job, prepared: object) -> None:
        """A revision of the prompt. Raises: WrongState after the final one."""
        assert isinstance(prepared, PreparedPrompt)
        state = _state(job)
        state.revise(prepared)
        self._swap.account(job.id, state.moved)
        if self._memory.index is not None:
            # What stood through a revision. Of the rest, the template's closing tokens among it, blocks would
            # go on lying between those of this prompt.
            state.publish(self._memory.index, state.sound)
            state.adopt(self._memory.index)
        if prepared.final:
            state.reused = min(state.cached, state.prompt_length)

    def ready(self, job: Job) -> bool:
        return _state(job).ready

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        first, ready = _peeked(ready)
        if first is not None and _state(first).ending is not None:
            return Batch(self._info.name, "end", (first,), 1.0, END)
        looked = list(islice((job for job in ready if _state(job).ending is None), self._settings.max_rows))
        back = self._coming_back(looked)
        if back is not None:
            return back
        chosen = self._planner.choose((job for job in looked if _state(job).moved is None), budget)
        drafted = self._drafting.add_drafts(chosen, self._planner, budget)
        if isinstance(drafted, Batch):
            return drafted
        rows: list[Row] = []
        for row in drafted:
            table = _state(row.job).table
            if self._memory.reserve(table, row.tokens):
                rows.append(row)
            elif self._memory.reserve(table, row.count):
                rows.append(Row(row.job, row.count))
            elif not rows:
                raise Pressure(self._info.name, self._memory.short(table, row.count))
        return self._planner.batch(rows, budget) if rows else None

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        if batch.work is END:
            (job,) = batch.rows
            yield from (Emission(job, chunk) for chunk in self._committer.end(_state(job)))
            return
        if isinstance(batch.work, Restore):
            yield from self._restore(batch)
            return
        if batch.kind == KIND:
            assert self._draft is not None
            yield from self._draft.run(batch)
            return
        work: Work = batch.work
        states = [_state(job) for job in batch.rows]
        drawing = [i for i, count in enumerate(work.counts) if draws(states[i], count)]
        packed = pack(states, work.counts, work.drafts, self._memory)
        logits = yield from self._decoder.forward(packed, self._memory.cache, work.every)
        asked: list[RowSampling] = []
        for i in drawing:
            if states[i].constraint is not None:
                yield None
            asked += questions(states[i], work.drafts[i])
        drawn: list[Drawn] = []
        while logits is not None and len(drawn) < len(asked):
            yield None
            some = slice(len(drawn), len(drawn) + self._drawn_at_once)
            drawn += draw(logits[some], asked[some])
        answers, emissions = iter(drawn), list[Emission]()
        for i, job in enumerate(batch.rows):
            tokens = list(islice(answers, len(work.drafts[i]) + 1)) if i in drawing else []
            if not job.cancelled:
                chunks = self._committer.commit(
                    states[i], work.counts[i], work.drafts[i], tokens, work.given[i]
                )
                emissions += [Emission(job, chunk) for chunk in chunks]
        yield from emissions

    def estimate(self, batch: Batch) -> Estimate:
        return self._cost.estimate(batch)

    def observe(self, batch: Batch, device_ms: float) -> None:
        if batch.kind in (EVICT, RESTORE):
            self._cost.observe(batch, device_ms)
        elif batch.work is not END:
            self._cost.observe(batch, device_ms)
            self._drafting.observe(batch, device_ms)

    def holders(self) -> Iterable[Job]:
        return [self._admitted[table.owner] for table in self._memory.pool.tables]

    def leased(self, job: Job) -> int:
        """Blocks that no other job holds."""
        return self._memory.held_alone(_state(job).table)

    def keeps(self, job: Job, budget: Budget) -> int:
        """Tokens from the first on; none of a job whose KV is in host memory already."""
        state = _state(job)
        if not self._settings.swap or state.moved is not None:
            return 0
        return self._swap.worth(state.table.length, budget)

    def evict(self, job: Job, keep: int) -> None:
        """The rest of the KV is computed again from the job's tokens when its turn comes."""
        state = _state(job)
        state.evict(self._swap.out(state.table, keep) if keep else None)
        self._swap.account(job.id, state.moved)

    def release(self, job: Job) -> None:
        del self._admitted[job.id]
        state = _state(job)
        if self._memory.index is not None and state.drawn and not state.broken:
            state.publish(self._memory.index, state.table.length)
        self._drafting.leave(state)
        state.table.free()
        state.moved = None
        self._swap.account(job.id, None)
        self._memory.tidy()

    def _coming_back(self, looked: list[Job]) -> Batch | None:
        """The slice that brings the first job's KV back from host memory. Whoever rode along again where room
        is to spare would lose it at the first's next block. Raises: Pressure, where there is no memory."""
        moved = _state(looked[0]).moved if looked else None
        if moved is None:
            return None
        table = _state(looked[0]).table
        if not self._memory.reserve(table, moved.tokens):
            raise Pressure(self._info.name, self._memory.short(table, moved.tokens))
        return self._swap.batch((looked[0],), moved.tokens)

    def _restore(self, batch: Batch) -> Iterator[Emission | None]:
        (job,) = batch.rows
        state = _state(job)
        assert state.moved is not None
        reserved = self._memory.reserve(state.table, state.moved.tokens)
        assert reserved, "the plan has reserved this"
        for _ in self._swap.back(state.table, state.moved):
            yield None
        state.restored(batch.work.tokens)
        self._swap.account(job.id, None)

    def _next_end_s(self) -> float:
        """When the first running job will have ended at the latest, by the measured pace of decoding."""
        left = min(
            _state(job).sampling.max_tokens - max(0, _state(job).drawn) for job in self._admitted.values()
        )
        rows = max(1, min(len(self._admitted), self._settings.max_rows))
        pace = self._cost.estimate(Batch(self._info.name, "decode", (), rows))
        return max(0.1, left * (pace.median_ms if pace is not UNKNOWN else 50.0) / 1000)


def _peeked(jobs: Iterable[Job]) -> tuple[Job | None, Iterable[Job]]:
    """The first, and all of them."""
    rest = iter(jobs)
    first = next(rest, None)
    return first, chain([first], rest) if first is not None else rest


def _state(job: Job) -> TextState:
    state = job.state
    assert isinstance(state, TextState)
    return state
