"""The text pipeline: a Llama-family folder behind `pipelines.contract.Pipeline`.

One slice computes some new tokens of some jobs in one packed forward pass and commits once: the KV of all of
them, and one token for each job whose prompt is complete. See `planner` for what goes into a slice,
`kv_cache` for where it is kept, `state` for what a job is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from kernels import Drawn, Span, draw, plan_attention
from pipelines.contract import Batch, Budget, Emission, Emitted, Estimate, Job, Pressure
from pipelines.cost import UNKNOWN, CostModel
from pipelines.errors import Exhausted, InvalidRequest
from pipelines.messages import (
    Done,
    Failed,
    FinishReason,
    Input,
    ModelInfo,
    PromptRevision,
    Request,
    TextRequest,
    TokenChunk,
)
from pipelines.text.config import ModelConfig, load_config
from pipelines.text.kv_cache import BLOCK, BlockPool, BlockTable, blocks_for
from pipelines.text.loader import load_weights
from pipelines.text.model import Decoder, Packed
from pipelines.text.planner import Planner, Work
from pipelines.text.prefix_index import PrefixIndex, root_key
from pipelines.text.requests import PreparedPrompt, check_request, prepare_prompt
from pipelines.text.settings import TextSettings
from pipelines.text.state import TextState
from pipelines.text.stream import Piece, TextStream
from pipelines.text.tokenizer import ChatTokenizer

_POOL_BYTES = 1 << 30
# Scores in one call of the sampler on CPU, a few milliseconds; on a GPU all rows share one transfer.
_DRAWN_SCORES = 1 << 17


class TextPipeline:
    """One loaded text model. Owner: the executor thread, but for `prepare`."""

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        decoder: Decoder,
        tokenizer: ChatTokenizer,
        settings: TextSettings,
    ) -> None:
        self._config = config
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._settings = settings
        self._cost = CostModel()
        self._planner = Planner(name, config, self._cost, settings.max_rows, settings.max_chunk)
        self._pool = BlockPool(blocks_for(_pool_tokens(config, decoder.dtype, settings)))
        self._index = PrefixIndex(self._pool)
        self._cache = decoder.new_cache(self._pool.size * BLOCK)
        on_cpu = self._cache[0].device.type == "cpu"
        self._drawn_at_once = max(1, _DRAWN_SCORES // config.vocab) if on_cpu else settings.max_rows
        self._admitted: dict[int, Job] = {}
        self._info = ModelInfo(
            name=name,
            modality="text",
            family="llama",
            parameters=config.parameters,
            context_tokens=config.context,
        )

    @classmethod
    def load(cls, folder: Path, *, name: str, settings: TextSettings) -> TextPipeline:
        """Load a Hugging Face folder: config.json, safetensors, tokenizer.json, chat template.

        Raises: ModelBroken naming the file, Unsupported naming the config's field, ValueError naming the
        setting.
        """
        config = load_config(folder)
        dtype: torch.dtype = getattr(torch, settings.dtype)
        config = replace(config, context=_context_tokens(config, dtype, settings))
        tokenizer = ChatTokenizer(folder, config.vocab)
        weights = load_weights(folder, config, dtype, torch.device(settings.device))
        return cls(name, config, Decoder(config, weights), tokenizer, settings)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prepare(self, request: Request, value: Input | None) -> object:
        """The checked request, or a revision as token ids. Thread-safe. Raises: InvalidRequest."""
        if not isinstance(request, TextRequest):
            raise InvalidRequest("model", f"{self._info.name} is a text model")
        if value is None:
            check_request(request, self._config.vocab, self._config.context)
            return request
        if not isinstance(value, PromptRevision):
            raise InvalidRequest("input", "a text model takes prompt revisions")
        return prepare_prompt(self._tokenizer, request, value, self._config.context)

    def admit(self, job: Job, prepared: object) -> None:
        """Raises: Exhausted when `max_jobs` are admitted."""
        assert isinstance(prepared, TextRequest)
        if len(self._admitted) >= self._settings.max_jobs:
            raise Exhausted(
                f"{self._info.name}: {self._settings.max_jobs} jobs are running",
                retry_after_s=self._next_end_s(),
            )
        stream = TextStream(prepared.sampling.stop, strips_space=self._tokenizer.strips_space)
        job.state = TextState(prepared.sampling, BlockTable(self._pool), stream, [root_key(job.tenant)])
        self._admitted[job.id] = job

    def update(self, job: Job, prepared: object) -> None:
        """A revision of the prompt. Raises: WrongState after the final one."""
        assert isinstance(prepared, PreparedPrompt)
        state = _state(job)
        state.revise(prepared)
        if self._settings.prefix_reuse:
            state.adopt(self._index)
        if prepared.final:
            state.reused = state.table.length

    def ready(self, job: Job) -> bool:
        state = _state(job)
        return not state.finished and state.pending > 0

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        rows: list[tuple[Job, int]] = []
        for job, count in self._planner.choose(ready, budget):
            if self._reserve(job, count):
                rows.append((job, count))
            elif not rows:
                raise Pressure(self._info.name)
        return self._planner.batch(rows, budget) if rows else None

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        work: Work = batch.work
        packed, drawing = self._pack(batch.rows, work.counts)
        logits = yield from self._decoder.forward(packed, self._cache, work.every)
        drawn: list[Drawn] = []
        while logits is not None and len(drawn) < len(drawing):
            yield None
            some = slice(len(drawn), len(drawn) + self._drawn_at_once)
            drawn += draw(logits[some], [_state(job).row_sampling() for job in drawing[some]])
        tokens = dict(zip((job.id for job in drawing), drawn, strict=True))
        emissions: list[Emission] = []
        for job, count in zip(batch.rows, work.counts, strict=True):
            if not job.cancelled:
                emissions += [
                    Emission(job, chunk) for chunk in self._commit(_state(job), count, tokens.get(job.id))
                ]
        yield from emissions

    def estimate(self, batch: Batch) -> Estimate:
        return self._cost.estimate(batch)

    def observe(self, batch: Batch, device_ms: float) -> None:
        self._cost.observe(batch, device_ms)

    def leased(self, job: Job) -> int:
        """Blocks that only this job holds."""
        if job.in_slice:
            return 0
        return sum(1 for block in _state(job).table.blocks if self._pool.count(block) == 1)

    def evict(self, job: Job) -> None:
        """The KV is computed again from the job's tokens when its turn comes."""
        _state(job).evict()

    def release(self, job: Job) -> None:
        del self._admitted[job.id]
        state = _state(job)
        if self._settings.prefix_reuse and state.drawn and not state.broken:
            state.publish(self._index)
        state.table.free()
        # What is kept for later must not scatter the tables of jobs that run now.
        self._index.shrink(self._pool.size // 4 - self._pool.free)

    def _reserve(self, job: Job, count: int) -> bool:
        table = _state(job).table
        short = table.missing(count) - self._pool.free
        if short > 0:
            self._index.shrink(short)
        return table.reserve(count, self._copy_block)

    def _copy_block(self, source: int, target: int) -> None:
        for layer in self._cache:
            layer[:, target * BLOCK : (target + 1) * BLOCK] = layer[:, source * BLOCK : (source + 1) * BLOCK]

    def _pack(self, rows: tuple[Job, ...], counts: tuple[int, ...]) -> tuple[Packed, list[Job]]:
        """The slice's new tokens, and the jobs that draw a token from it."""
        device = self._cache[0].device
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        spans: list[Span] = []
        last: list[int] = []
        drawing: list[Job] = []
        for job, count in zip(rows, counts, strict=True):
            state = _state(job)
            reserved = self._reserve(job, count)
            assert reserved
            start = state.table.length
            end = start + count
            places = state.table.places(0, end)
            spans.append(
                Span(len(ids), count, end, places if isinstance(places, slice) else places.to(device))
            )
            ids += state.tokens[start:end]
            positions += range(start, end)
            slots += _numbers(state.table.places(start, end))
            if state.final and end == len(state.tokens):
                last.append(len(ids) - 1)
                drawing.append(job)
        packed = Packed(
            torch.tensor(ids, device=device),
            torch.tensor(positions, device=device),
            torch.tensor(slots, device=device),
            plan_attention(spans, self._cache[0]),
            torch.tensor(last, dtype=torch.int64, device=device),
        )
        return packed, drawing

    def _commit(self, state: TextState, count: int, drawn: Drawn | None) -> list[Emitted]:
        """Make the slice's work for one row durable; returns what the client gets."""
        state.table.append(count)
        if drawn is None:
            return []
        if not drawn.finite:
            state.finished = state.broken = True
            return [Failed("ModelBroken", f"{self._info.name}: the model computed NaN for this prompt")]
        if self._settings.prefix_reuse and not state.drawn:
            state.publish(self._index)
        state.tokens.append(drawn.id)
        if drawn.id in self._config.eos:
            return self._finish(state, state.stream.finish(), FinishReason.STOP)
        piece = state.stream.push(drawn, self._tokenizer.content(drawn.id))
        if piece.stopped:
            return self._finish(state, piece, FinishReason.STOP)
        limit = state.reached_limit(self._config.context)
        if limit is None:
            return [self._chunk(state, piece)] if piece.text or piece.tokens else []
        rest = state.stream.finish()
        reason = FinishReason.STOP if rest.stopped else limit
        return self._finish(state, Piece(piece.text + rest.text, piece.tokens + rest.tokens), reason)

    def _finish(self, state: TextState, piece: Piece, reason: FinishReason) -> list[Emitted]:
        state.finished = True
        last: list[Emitted] = [self._chunk(state, piece)] if piece.text or piece.tokens else []
        return [*last, Done(reason, state.usage())]

    def _chunk(self, state: TextState, piece: Piece) -> TokenChunk:
        ids = tuple(token.id for token in piece.tokens)
        if not state.sampling.logprobs:
            return TokenChunk(piece.text, ids, state.revision)
        top = tuple(
            tuple((self._tokenizer.content(i).decode(errors="replace"), log) for i, log in token.top)
            for token in piece.tokens
        )
        return TokenChunk(
            piece.text, ids, state.revision, tuple(token.logprob for token in piece.tokens), top
        )

    def _next_end_s(self) -> float:
        """When the first running job will have ended at the latest, by the measured pace of decoding."""
        left = min(
            _state(job).sampling.max_tokens - max(0, _state(job).drawn) for job in self._admitted.values()
        )
        rows = max(1, min(len(self._admitted), self._settings.max_rows))
        pace = self._cost.estimate(Batch(self._info.name, "decode", (), rows))
        return max(0.1, left * (pace.median_ms if pace is not UNKNOWN else 50.0) / 1000)


def _state(job: Job) -> TextState:
    state = job.state
    assert isinstance(state, TextState)
    return state


def _numbers(places: slice | torch.Tensor) -> Iterable[int]:
    return range(places.start, places.stop) if isinstance(places, slice) else places.tolist()


def _affordable_tokens(config: ModelConfig, dtype: torch.dtype) -> int:
    width = 2 * config.kv_heads * config.head_dim
    return _POOL_BYTES // (config.layers * width * dtype.itemsize)


def _context_tokens(config: ModelConfig, dtype: torch.dtype, settings: TextSettings) -> int:
    wanted = settings.context_tokens or settings.kv_tokens or _affordable_tokens(config, dtype)
    return min(config.context, wanted)


def _pool_tokens(config: ModelConfig, dtype: torch.dtype, settings: TextSettings) -> int:
    """Raises: ValueError where a single job would not fit."""
    if settings.kv_tokens:
        if settings.kv_tokens < config.context:
            raise ValueError(
                f"kv_tokens: {settings.kv_tokens} is less than one context of {config.context} tokens"
            )
        return settings.kv_tokens
    return max(config.context, min(8 * config.context, _affordable_tokens(config, dtype)))
