"""The paged KV cache's bookkeeping: blocks, who holds them, and each job's table of them.

Rules
1. A block is `BLOCK` tokens. It is free (count 0) or held `count` times: by tables, or by the prefix index.
2. A table of length n holds exactly the blocks of tokens 0..n-1, and possibly reserved ones behind them.
   Only `append` raises the length, after the KV was written; only `crop` and `free` lower it.
3. Writing goes to positions >= length. A block that others hold too is never written: `reserve` first
   replaces a shared last block by a copy.
4. `reserve` is all or nothing. It changes no length, so a slice that is abandoned leaves nothing behind but
   reserved blocks, which the next slice uses, or `crop` and `free` return.
5. Blocks are handed out in consecutive runs where possible: a table in one piece is read without copying.

Owner: the executor thread. The tensors themselves belong to the pipeline; copies are made by the `copy`
function given to `reserve`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

BLOCK = 16

CopyBlock = Callable[[int, int], None]


def blocks_for(tokens: int) -> int:
    """How many blocks hold so many tokens."""
    return -(-tokens // BLOCK)


class BlockPool:
    """Reference counts of all blocks. loosened: how often a block came to have one holder left. tables: those
    that hold any."""

    def __init__(self, blocks: int) -> None:
        self._counts = np.zeros(blocks, dtype=np.int32)
        self.size = blocks
        self.free = blocks
        self.loosened = 0
        self.tables: set[BlockTable] = set()

    def count(self, block: int) -> int:
        """How many hold the block."""
        return int(self._counts[block])

    def take(self, number: int, after: int = -1) -> list[int]:
        """`number` free blocks, each held once; consecutive from `after` + 1 on where those are free.

        The caller has checked `free`.
        """
        assert number <= self.free
        taken: list[int] = []
        follower = after + 1 if after >= 0 else self.size
        while len(taken) < number:
            if follower >= self.size or self._counts[follower]:
                follower = self._spacious(number - len(taken))
            self._counts[follower] = 1
            taken.append(follower)
            follower += 1
        self.free -= number
        return taken

    def hold(self, block: int) -> None:
        """One more holder of a block in use."""
        assert self._counts[block] > 0
        self._counts[block] += 1

    def drop(self, block: int) -> None:
        """One holder less; the last one frees the block."""
        assert self._counts[block] > 0
        self._counts[block] -= 1
        self.loosened += int(self._counts[block] == 1)
        if not self._counts[block]:
            self.free += 1

    def _spacious(self, wanted: int) -> int:
        """Where to start a new run: in the longest free one. If that begins right behind another table,
        leave both half of what remains, so that each may grow in one piece."""
        edges = np.flatnonzero(np.diff(np.concatenate(([1], self._counts, [1])) == 0))
        starts, ends = edges[::2], edges[1::2]
        longest = int((ends - starts).argmax())
        start, length = int(starts[longest]), int(ends[longest] - starts[longest])
        return start + (max(0, length - wanted) // 2 if start else 0)


class BlockTable:
    """Where the tokens of one job, `owner`, lie. Owner: the executor thread, through the job's state."""

    def __init__(self, pool: BlockPool, owner: int = 0) -> None:
        self._pool = pool
        self.owner = owner
        self._blocks: list[int] = []
        self._pieces = 0
        self._slots: Tensor | None = None
        self.length = 0

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(self._blocks)

    def missing(self, tokens: int) -> int:
        """How many free blocks `reserve(tokens)` would take now."""
        copied = 1 if self._shared_tail() is not None else 0
        return copied + max(0, blocks_for(self.length + tokens) - len(self._blocks))

    def reserve(self, tokens: int, copy: CopyBlock) -> bool:
        """Room to write `tokens` more behind the length. False, and nothing changed, where the pool is short.

        `copy(source, target)` copies one block's KV in all layers.
        """
        wanted = blocks_for(self.length + tokens) - len(self._blocks)
        tail = self._shared_tail()
        if wanted <= 0 and tail is None:
            return True
        if self.missing(tokens) > self._pool.free:
            return False
        if tail is not None:
            (block,) = self._pool.take(1)
            copy(self._blocks[tail], block)
            self._pool.drop(self._blocks[tail])
            self._blocks[tail] = block
            self._renumber()
        if wanted > 0:
            self._extend(self._pool.take(wanted, after=self._blocks[-1] if self._blocks else -1))
        return True

    def append(self, tokens: int) -> None:
        """KV of `tokens` more has been written to reserved room."""
        assert blocks_for(self.length + tokens) <= len(self._blocks)
        self.length += tokens

    def adopt(self, block: int) -> None:
        """Append a full block that others hold too. Only where the length fills the blocks so far."""
        assert self.length == len(self._blocks) * BLOCK
        self._pool.hold(block)
        self._extend([block])
        self.length += BLOCK

    def crop(self, length: int) -> None:
        """Forget all tokens from `length` on, and reserved room."""
        assert length <= self.length
        keep = blocks_for(length)
        for block in self._blocks[keep:]:
            self._pool.drop(block)
        del self._blocks[keep:]
        if not self._blocks:
            self._pool.tables.discard(self)
        self.length = length
        self._renumber()

    def fork(self) -> BlockTable:
        """A second table of the same tokens; the blocks are shared until one of the two writes."""
        twin = BlockTable(self._pool, self.owner)
        for block in self._blocks[: blocks_for(self.length)]:
            self._pool.hold(block)
            twin._extend([block])
        twin.length = self.length
        return twin

    def free(self) -> None:
        """Give everything back."""
        self.crop(0)

    def places(self, start: int, end: int) -> slice | Tensor:
        """The slots of tokens start..end-1: a slice where they lie in one piece, else int64."""
        if self._pieces <= 1:
            base = self._blocks[0] * BLOCK if self._blocks else 0
            return slice(base + start, base + end)
        if self._slots is None:
            blocks = torch.tensor(self._blocks).unsqueeze(1) * BLOCK
            self._slots = (blocks + torch.arange(BLOCK)).view(-1)
        return self._slots[start:end]

    def _shared_tail(self) -> int | None:
        """Index of the block that holds both the last token and the next one, if others hold it too."""
        if self.length % BLOCK == 0:
            return None
        tail = self.length // BLOCK
        return tail if self._pool.count(self._blocks[tail]) > 1 else None

    def _extend(self, blocks: list[int]) -> None:
        for block in blocks:
            if not self._blocks or block != self._blocks[-1] + 1:
                self._pieces += 1
            self._blocks.append(block)
        if blocks:
            self._pool.tables.add(self)
        self._slots = None

    def _renumber(self) -> None:
        blocks, self._blocks, self._pieces = self._blocks, [], 0
        self._extend(blocks)
