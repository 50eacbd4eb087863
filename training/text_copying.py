"""What copying from the context would draft of an answer that is known (CopySpec: Dumitru et al., 2025)."""

from __future__ import annotations

from collections.abc import Sequence

GAMMA = 3
LONGEST = 10


def copied(prompt: Sequence[int], said: Sequence[int]) -> tuple[int, int]:
    """Tokens checked and tokens accepted while `said` is decoded behind `prompt`.

    Whenever the last `GAMMA` tokens stood in the context before, up to `LONGEST` tokens behind their first
    occurrence are drafted. Tokens behind the first wrong one are not counted as checked.
    """
    ids, first = list(prompt), dict[tuple[int, ...], int]()
    for end in range(GAMMA, len(ids)):
        first.setdefault(tuple(ids[end - GAMMA : end]), end)
    checked = accepted = done = 0
    while done < len(said):
        begin = first.get(tuple(ids[-GAMMA:]))
        draft = ids[begin : begin + LONGEST] if begin is not None else []
        kept = next(
            (i for i, pair in enumerate(zip(draft, said[done:], strict=False)) if pair[0] != pair[1]), None
        )
        if kept is None:
            kept = min(len(draft), len(said) - done)
            checked += kept
        else:
            checked += kept + 1
        accepted += kept
        for token in said[done : done + kept + 1]:
            first.setdefault(tuple(ids[-GAMMA:]), len(ids))
            ids.append(token)
        done += kept + 1
    return checked, accepted
