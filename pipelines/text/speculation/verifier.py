"""Lossless speculation: drafted tokens are checked in the forward pass that computes the pending ones.

A row computes its pending tokens and k drafted ones behind them. The logits at the last pending token and at
each draft give k + 1 draws, each by the sampler of its own position: draw i is what plain decoding would say
there if the i drafts before it are what plain decoding says. So the draws count up to and including the first
that differs from its draft.

Rules
1. A draw is a function of (logits, seed, position, tokens before it), so what is said is what plain decoding
   says, whatever was drafted (Leviathan et al., 2023, reach the same distribution by rejection sampling; with
   noise keyed by position the very tokens are the same, for every temperature, penalty and filter).
2. Penalties see the drafts in front of a draw as if they had been said. That matters only for draws that
   count, and in front of those the drafts have been said.
3. KV is written for all drafts, behind the committed length. What does not count is never made durable: the
   next slice writes over it.
4. A slice decides what to draft when it is planned; nothing here depends on anything but batch and states.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernels import Drawn, RowSampling
from pipelines.text.state import TextState


def questions(state: TextState, draft: Sequence[int]) -> list[RowSampling]:
    """How the tokens behind the pending ones and behind each draft are drawn."""
    masks = state.constraint.masks(draft) if state.constraint else [None] * (len(draft) + 1)
    return [state.row_sampling(draft[:place], mask) for place, mask in enumerate(masks)]


def accepted(draft: Sequence[int], drawn: Sequence[Drawn]) -> int:
    """How many drafts at the beginning are right; that many draws and one more count."""
    for place, token in enumerate(draft):
        if drawn[place].id != token or not drawn[place].finite:
            return place
    return len(draft)
