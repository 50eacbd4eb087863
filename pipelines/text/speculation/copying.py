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
        self._key = 0
        self._followed = 0
        self._place = 0
        self._agreed = 0
        self._tokens: Sequence[int] = ()

    def follow(self, tokens: Sequence[int], prompt_length: int) -> None:
        """Index the new tokens; a copy that has gone well goes on, another is looked for otherwise."""
        after, key, vocab, span = self._after, self._key, self._vocab, self._span
        place, agreed, found = self._place, self._agreed, None
        for end in range(self._followed, len(tokens)):
            token = tokens[end]
            key = (key * vocab + token) % span
            if agreed and tokens[place] == token:
                place, agreed = place + 1, agreed + 1
            else:
                place, agreed = 0, 0
            if end + 1 >= GAMMA:
                found = after.get(key)
                after[key] = end + 1
        if not agreed and found is not None:
            place, agreed = found, GAMMA
        self._key, self._followed, self._tokens = key, len(tokens), tokens
        self._place, self._agreed = place, agreed

    def propose(self, most: int) -> Draft:
        """What followed."""
        if not self._agreed:
            return Draft(self._followed)
        end = min(self._place + most, self._followed)
        return copied(self._followed, self._tokens[self._place : end], self._agreed, self.rates)
