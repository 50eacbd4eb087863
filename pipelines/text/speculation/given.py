"""Drafts from a given text: an answer to an earlier form of the prompt is a good guess at the new one.

The text is followed token by token from the answer's beginning. Where the answer leaves it, the best place
to go on is looked for near by: the one whose left side agrees longest with what has been said, or, where
nothing agrees, the one behind a single changed token.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.text.speculation.drafter import Draft, Rates, copied

WINDOW = 24
LONGEST_MATCH = 12


class GivenText:
    """One job's given text, as token ids. Owner: the executor thread, through the job's state."""

    def __init__(self, text: Sequence[int], rates: Rates) -> None:
        self.rates = rates
        self._text = tuple(text)
        self._place = 0
        self._followed = 0
        self._end = 0
        # For how many tokens text and answer agree; where the answer begins they are taken to agree well.
        self.agreed = LONGEST_MATCH

    def follow(self, tokens: Sequence[int], prompt_length: int) -> None:
        """Catch up with the answer, `tokens[prompt_length:]`."""
        for end in range(prompt_length + self._followed, len(tokens)):
            if self._place < len(self._text) and self._text[self._place] == tokens[end]:
                self._place += 1
                self.agreed = min(LONGEST_MATCH, self.agreed + 1)
            else:
                self._place, self.agreed = self._nearest(tokens, prompt_length, end + 1)
        self._followed = len(tokens) - prompt_length
        self._end = len(tokens)

    def propose(self, most: int) -> Draft:
        """The text from where it is followed."""
        return copied(self._end, self._text[self._place : self._place + most], self.agreed, self.rates)

    def _nearest(self, tokens: Sequence[int], prompt_length: int, end: int) -> tuple[int, int]:
        """Where in the text to go on after `tokens[:end]`, and how many tokens agree to its left."""
        expected = self._place + 1
        best, agreed = expected, 0
        nearest_first = sorted(
            range(max(1, expected - WINDOW), min(len(self._text), expected + WINDOW) + 1),
            key=lambda place: abs(place - expected),
        )
        for place in nearest_first:
            length = 0
            longest = min(LONGEST_MATCH, place, end - prompt_length)
            while length < longest and self._text[place - 1 - length] == tokens[end - 1 - length]:
                length += 1
            if length > agreed:
                best, agreed = place, length
        return best, agreed
