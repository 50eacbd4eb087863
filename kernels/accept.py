"""Acceptance of drafted tokens on the device: how far each row's drafts agree with what was drawn.

A row's nodes are numbered from 0, its last known token; node j > 0 is a draft with a `parent` below it (a
chain has parent j - 1). The token drawn at an accepted node accepts that child which drafted it; the path
ends where no child did. Verification is equality of tokens (position-keyed noise makes the draw the same
whoever drafts).

Layout: packed `[tokens]`, the nodes of a row side by side: `drawn` and `drafted` int64, `parent` int32 (node
numbers of the row; -1 at node 0); `first`, `count` int32 `[rows]`, at most 64 nodes. Specification:
`kernels.reference_decoder.accept_drafts`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import power_of_2


@triton.jit
def _accept(
    drawn: tl.tensor,
    drafted: tl.tensor,
    parent: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    path: tl.tensor,
    length: tl.tensor,
    most: tl.tensor,
    NODES: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    start, nodes = tl.load(first + row), tl.load(count + row)
    i = tl.arange(0, NODES)
    held = i < nodes
    above = tl.load(parent + start + i, mask=held, other=-2)
    token = tl.load(drafted + start + i, mask=held, other=-1)
    found = tl.full([NODES], -1, tl.int32)
    here = tl.full([], 0, tl.int32)
    steps = tl.full([], 0, tl.int32)
    for _ in range(nodes):
        if here < NODES:
            found = tl.where(i == steps, here, found)
            steps += 1
            wanted = tl.load(drawn + start + here)
            fits = held & (above == here) & (token == wanted) & (i > 0)
            here = tl.min(tl.where(fits, i, NODES), 0)
    tl.store(path + row * most + i, found, mask=i < most)
    tl.store(length + row, steps)


def accept_drafts(
    drawn: Tensor, drafted: Tensor, parent: Tensor, first: Tensor, count: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """(path int32 `[rows, most]`: accepted node numbers from the root, -1 behind them; its length int32
    `[rows]`, 0 for an empty row)."""
    rows = first.numel()
    path = torch.empty((rows, most), dtype=torch.int32, device=drawn.device)
    length = torch.empty(rows, dtype=torch.int32, device=drawn.device)
    if rows:
        _accept[(rows,)](drawn, drafted, parent, first, count, path, length, most, NODES=power_of_2(most))
    return path, length
