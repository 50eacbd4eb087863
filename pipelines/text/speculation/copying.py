"""Drafts copied from the job's own prompt and answer (CopySpec; Dumitru et al., 2025): where the last GAMMA
tokens were said before, what followed them then may follow now.

CopySpec takes the first such place; the last one is nearer to what is being talked about.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.text.speculation.drafter import Draft, Rates, copied

GAMMA = 3


class CopyFromContext:
    """One job's index of all its tokens. Owner: the executor thread, through the job's state."""

    def __init__(self, vocab: int, rates: Rates) -> None:
        self.rates = rates
        self._vocab = vocab
        self._span = vocab**GAMMA
        self._after: dict[int, int] = {}
        # By token: the key that ends with it, and where that stood before, so that `rewind` can undo it.
        self._keys: list[int] = []
        self._before: list[int | None] = []
        self._place = 0
        self._agreed = 0
        self._tokens: Sequence[int] = ()

    def follow(self, tokens: Sequence[int], prompt_length: int) -> None:
        """Index the new tokens; a copy that has gone well goes on, another is looked for otherwise."""
        after, keys, before = self._after, self._keys, self._before
        key, vocab, span = keys[-1] if keys else 0, self._vocab, self._span
        place, agreed, found = self._place, self._agreed, None
        for end in range(len(keys), len(tokens)):
            token = tokens[end]
            key = (key * vocab + token) % span
            if agreed and tokens[place] == token:
                place, agreed = place + 1, agreed + 1
            else:
                place, agreed = 0, 0
            if end + 1 >= GAMMA:
                found = after.get(key)
                after[key] = end + 1
            keys.append(key)
            before.append(found)
        if not agreed and found is not None:
            place, agreed = found, GAMMA
        self._tokens = tokens
        self._place, self._agreed = place, agreed

    def rewind(self, length: int) -> None:
        """The tokens from `length` on are others now."""
        for end in range(len(self._keys) - 1, length - 1, -1):
            key, before = self._keys.pop(), self._before.pop()
            if before is not None:
                self._after[key] = before
            elif end + 1 >= GAMMA:
                del self._after[key]
        self._place, self._agreed = 0, 0

    def propose(self, most: int) -> Draft:
        """What followed."""
        if not self._agreed:
            return Draft(len(self._keys))
        end = min(self._place + most, len(self._keys))
        return copied(len(self._keys), self._tokens[self._place : end], self._agreed, self.rates)
