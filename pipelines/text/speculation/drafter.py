"""What a drafter is: something that guesses a job's next tokens and says how sure it is.

A drafter grades its tokens (how long a copy has agreed, how often a context was seen); how often tokens of a
grade turn out right is measured for it. Every offer is compared with what is said next, whether it was
verified or not, so a drafter that nobody listens to is known to have become good.

Owner of everything here: the executor thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# A draft ends where all of it being right is less likely than this.
HOPELESS = 0.05

_FORGET = 0.9
_FORGET_SHARED = 0.998
_TRUST_SHARED = 3.0


@dataclass(frozen=True, slots=True)
class Draft:
    """Guessed tokens; `chances[i]` is how likely token i is right where those before it are. `place`: the
    number of tokens in front of it."""

    place: int
    tokens: Sequence[int] = ()
    grades: Sequence[int] = ()
    chances: Sequence[float] = ()

    @property
    def expected(self) -> float:
        """How many tokens are right on average."""
        total, alive = 0.0, 1.0
        for chance in self.chances:
            alive *= chance
            total += alive
        return total


class Drafter(Protocol):
    """One job's source of guesses. A function of the tokens: `follow` only catches up with them."""

    @property
    def rates(self) -> Rates: ...

    def follow(self, tokens: Sequence[int], prompt_length: int) -> None:
        """Catch up with all tokens so far; they only grow."""

    def propose(self, most: int) -> Draft:
        """At most so many tokens that may come next."""


class Rates:
    """How often tokens of each grade were right: a moving average, which starts at that of `shared`."""

    def __init__(self, grades: int, shared: Rates | None = None, first_guess: float = 0.4) -> None:
        self._shared = shared
        self._forget = _FORGET if shared else _FORGET_SHARED
        self._first_guess = first_guess
        self._right = [0.0] * grades
        self._seen = [0.0] * grades
        # What is known without what was seen here: of the shared ones their very list, which follows them.
        self._known: list[float] = shared._chances if shared else [first_guess] * grades
        self._chances: list[float] = self._known[:]

    def chance(self, grade: int) -> float:
        """That a token of this grade is right."""
        seen = self._seen[grade]
        if not seen:
            return self._known[grade]
        return (self._right[grade] + _TRUST_SHARED * self._known[grade]) / (seen + _TRUST_SHARED)

    def overall(self) -> float:
        """That a token is right, whatever its grade."""
        known = self._shared.overall() if self._shared else self._first_guess
        return (sum(self._right) + _TRUST_SHARED * known) / (sum(self._seen) + _TRUST_SHARED)

    def saw(self, grade: int, right: bool) -> None:
        """A token of this grade has turned out right or wrong."""
        self._right[grade] = self._right[grade] * self._forget + right
        self._seen[grade] = self._seen[grade] * self._forget + 1
        self._chances[grade] = self.chance(grade)
        if self._shared is not None:
            self._shared.saw(grade, right)

    def learn(self, draft: Draft, tokens: Sequence[int]) -> None:
        """Compare an offer with what was said since: up to its first wrong token."""
        for place, (token, grade) in enumerate(zip(draft.tokens, draft.grades, strict=True), draft.place):
            if place == len(tokens):
                return
            self.saw(grade, tokens[place] == token)
            if tokens[place] != token:
                return


def copied(place: int, tokens: Sequence[int], agreed: int, rates: Rates) -> Draft:
    """A draft that goes on copying `tokens` from a text that has agreed for `agreed` tokens so far."""
    grades, chances, alive = [], [], 1.0
    for number in range(len(tokens)):
        grade = copy_grade(agreed + number)
        chance = rates.chance(grade)
        alive *= chance
        if alive < HOPELESS:
            break
        grades.append(grade)
        chances.append(chance)
    return Draft(place, tokens[: len(grades)], grades, chances)


COPY_GRADES = 5


def copy_grade(agreed: int) -> int:
    """0, 1 to 2, 3 to 5, 6 to 11, or more tokens of agreement."""
    return (agreed > 0) + (agreed > 2) + (agreed > 5) + (agreed > 11)
