"""One model's KV memory: the tensors, the pool of blocks over them, and what is kept for later jobs.

A reservation that finds the pool short first takes what only the prefix index holds. Owner: the executor
thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.text.config import ModelConfig
from pipelines.text.kv_cache import BLOCK, BlockPool, BlockTable, blocks_for
from pipelines.text.prefix_index import PrefixIndex
from pipelines.text.settings import TextSettings

_POOL_BYTES = 1 << 30


def token_bytes(dtype: torch.dtype, *models: ModelConfig) -> int:
    """What the KV of one token takes in all of the models."""
    return sum(2 * each.layers * each.kv_heads * each.head_dim for each in models) * dtype.itemsize


def context_tokens(config: ModelConfig, each: int, settings: TextSettings) -> int:
    """The longest job that is admitted, prompt and answer. each: bytes of a token."""
    wanted = settings.context_tokens or settings.kv_tokens or _POOL_BYTES // each
    return min(config.context, wanted)


def pool_tokens(config: ModelConfig, each: int, settings: TextSettings) -> int:
    """each: bytes of a token. Raises: ValueError where a single job would not fit."""
    if not settings.kv_tokens:
        return max(config.context, min(8 * config.context, _POOL_BYTES // each))
    if settings.kv_tokens < config.context:
        raise ValueError(
            f"kv_tokens: {settings.kv_tokens} is less than one context of {config.context} tokens"
        )
    return settings.kv_tokens


class KvMemory:
    """`cache`: one tensor a layer, `[2 * kv_heads, slots, head_dim]`; `index` None without prefix reuse.
    windows: those that the layers have, 0 for none."""

    def __init__(self, cache: Sequence[Tensor], windows: frozenset[int], *, prefix_reuse: bool) -> None:
        self.cache = cache
        self.windows = windows
        self.pool = BlockPool(cache[0].shape[1] // BLOCK)
        self.index = PrefixIndex(self.pool) if prefix_reuse else None

    def table(self, owner: int = 0) -> BlockTable:
        """An empty table for this job."""
        return BlockTable(self.pool, owner)

    def reserve(self, table: BlockTable, tokens: int) -> bool:
        """Room for `tokens` more; False, and nothing changed but what was kept for later, without it."""
        if table.reserve(tokens, self._copy_block):
            return True
        if self.index is None:
            return False
        self.index.shrink(table.missing(tokens) - self.pool.free)
        return table.reserve(tokens, self._copy_block)

    def short(self, table: BlockTable, tokens: int) -> int:
        """Blocks that are missing where `reserve` has said no."""
        return table.missing(tokens) - self.pool.free

    def held_alone(self, table: BlockTable) -> int:
        """Blocks that freeing this table would leave free, or only kept for later."""
        if not table.blocks:
            return 0
        kept = self.index.holds if self.index is not None else lambda block: False
        return sum(1 for block in table.blocks if self.pool.count(block) == 1 + kept(block))

    def room(self) -> int:
        """Blocks that are free, or only kept for later."""
        return self.pool.free + (self.index.idle() if self.index is not None else 0)

    def tidy(self) -> None:
        """What is kept for later must not scatter the tables of jobs that run now: a quarter stays free."""
        if self.index is not None:
            self.index.shrink(self.pool.size // 4 - self.pool.free)

    def _copy_block(self, source: int, target: int) -> None:
        for layer in self.cache:
            layer[:, target * BLOCK : (target + 1) * BLOCK] = layer[:, source * BLOCK : (source + 1) * BLOCK]


def slots_for(tokens: int) -> int:
    """Slots of whole blocks for so many tokens."""
    return blocks_for(tokens) * BLOCK
