"""Reuse of KV over jobs: full blocks by the hash of all tokens up to their end.

Rules
1. A key is the chained hash of a tenant and of every token from the first to the block's last, so equal keys
   mean equal KV content. The tenant comes from the server; blocks are never shared between two.
2. The index holds its blocks itself; they outlive the job that computed them. A block is put in only after
   the slice that wrote it has committed.
3. Memory is given back on demand: `shrink` drops what was used longest ago and no table holds. A block's
   followers count as used before it, so a chain shrinks from its end. Where tables hold all there is, asking
   again costs nothing until one of them lets go: in a full pool every row of every plan asks.

Owner: the executor thread.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

import numpy as np

from pipelines.text.kv_cache import BLOCK, BlockPool


def root_key(tenant: str, scope: str = "") -> bytes:
    """Where the chains of a tenant's scope begin. The scope is hashed under the tenant, so that whatever a
    client writes there narrows its sharing and never reaches another tenant's."""
    salt = hashlib.blake2b(tenant.encode(), digest_size=16).digest()
    return hashlib.blake2b(scope.encode(), key=salt, digest_size=16).digest()


def next_key(key: bytes, tokens: Sequence[int]) -> bytes:
    """The key of the block of `tokens` that follows the block of `key`."""
    return hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), key=key, digest_size=16).digest()


class PrefixIndex:
    """Blocks by key, least recently used first."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._blocks: OrderedDict[bytes, int] = OrderedDict()
        self._held: set[int] = set()
        self._all_used_at = 0

    def holds(self, block: int) -> bool:
        """Whether the index is one of the block's holders."""
        return block in self._held

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, key: bytes, tokens: Sequence[int]) -> list[tuple[bytes, int]]:
        """The longest known chain of full blocks of `tokens` after `key`: (key, block) in order."""
        found: list[tuple[bytes, int]] = []
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            key = next_key(key, tokens[start : start + BLOCK])
            block = self._blocks.get(key)
            if block is None:
                break
            found.append((key, block))
        self._use([key for key, _ in found])
        return found

    def publish(self, chain: Sequence[tuple[bytes, int]]) -> None:
        """Make blocks findable; of two blocks with one key the first stays."""
        for key, block in chain:
            if key not in self._blocks:
                self._pool.hold(block)
                self._held.add(block)
                self._blocks[key] = block
        self._use([key for key, _ in chain])

    def idle(self) -> int:
        """Blocks that no table holds."""
        return sum(1 for block in self._held if self._pool.count(block) == 1)

    def shrink(self, blocks: int) -> int:
        """Free up to so many blocks that only the index holds; returns how many were."""
        if blocks <= 0 or self._all_used_at == self._pool.loosened:
            return 0
        idle = (key for key, block in self._blocks.items() if self._pool.count(block) == 1)
        dropped = list(islice(idle, blocks))
        for key in dropped:
            block = self._blocks.pop(key)
            self._held.remove(block)
            self._pool.drop(block)
        if len(dropped) < blocks:
            self._all_used_at = self._pool.loosened
        return len(dropped)

    def _use(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):
            self._blocks.move_to_end(key)
