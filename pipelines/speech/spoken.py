"""What a speech job has said so far and has still to say: the durable state of one job."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pipelines.speech.clauses import Border, ClauseSplitter, TextClause
from pipelines.speech.speaker import ClauseState, Prosody


@dataclass(slots=True)
class SpokenState:
    """Owner: the executor thread. Changes in `update` and at a slice's commit only.

    A clause goes from `waiting` (text) through `speaking` (acoustics known, audio partly made) to nothing.
    `current` is the text of `speaking`, kept so that an evicted clause can be begun again: `made` counts its
    chunks since it was begun last, `given` those that went to the listener. `pause_after` is the border
    after which the next sound comes, None before the first.
    """

    splitter: ClauseSplitter = field(default_factory=ClauseSplitter)
    waiting: deque[TextClause] = field(default_factory=deque)
    final: bool = False
    done: bool = False
    current: TextClause | None = None
    speaking: ClauseState | None = None
    made: int = 0
    given: int = 0
    before: Prosody | None = None
    pause_after: Border | None = None
    unspoken: int = 0
    characters: int = 0
    samples: int = 0

    @property
    def next_clause(self) -> TextClause | None:
        """The clause whose acoustics come next, None while there is none or one is being spoken."""
        if self.speaking is not None:
            return None
        return self.current or (self.waiting[0] if self.waiting else None)

    @property
    def exhausted(self) -> bool:
        """All text is there and spoken."""
        return self.final and self.speaking is None and self.next_clause is None

    def add(self, text: str, *, final: bool) -> None:
        """More text. Blank clauses are dropped here: they have no sound and end nothing."""
        clauses = self.splitter.push(text)
        if final:
            clauses += self.splitter.finish()
        self.waiting.extend(clause for clause in clauses if not clause.text.isspace())
        self.unspoken = self.splitter.held + sum(len(clause.text) for clause in self.waiting)
        self.final = final

    def begun(self, speaking: ClauseState | None) -> None:
        """Commit: the acoustics of the next clause are known; None where it has nothing to say."""
        clause = self.current
        if clause is None:
            clause = self.waiting.popleft()
            self.unspoken -= len(clause.text)
            self.characters += len(clause.text)
        self.current = clause if speaking is not None else None
        self.speaking = speaking
        self.made = 0

    def advanced(self, speaking: ClauseState | None) -> bool:
        """Commit: one chunk was made. Returns whether the listener has not had it before."""
        assert self.speaking is not None
        assert self.current is not None
        self.made += 1
        fresh = self.made > self.given
        self.given = max(self.given, self.made)
        if speaking is None:
            self.before, self.pause_after = self.speaking.prosody, self.current.border
            self.current, self.made, self.given = None, 0, 0
        self.speaking = speaking
        return fresh

    def forget_acoustics(self) -> None:
        """Eviction: the clause in progress is begun again later."""
        self.speaking = None
