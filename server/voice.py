"""The speech of one turn's answer.

Rules
1. Before the commit at most the first clause of the answer ahead is spoken, and kept back.
2. Audio leaves after the commit, and once the committed answer has begun with all that was spoken ahead.
3. Where the answer goes another way, what was spoken ahead is thrown away, and speaking begins again.
4. An answer without words (a drawing alone, nothing at all) is not spoken.
Owner: the turn's answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pipelines.errors import UpbeatError
from pipelines.messages import SpeechText
from pipelines.speech.clauses import ClauseSplitter
from server.dispatch import Work
from server.lanes import AudioLane
from server.pacing import Pacer
from server.turn import Turn

_ONE_MORE = re.compile(r"\s*\S")


class Voice:
    """submit(committed) gives a speech job, or raises. moved(work): another job than before speaks."""

    def __init__(
        self,
        turn: Turn,
        submit: Callable[[bool], Work],
        moved: Callable[[Work], None],
        committed: bool,
    ) -> None:
        self._turn = turn
        self._submit = submit
        self._moved = moved
        self.moved = False
        self._ahead = ""
        self._said = ""
        self._ended = False
        self.lane = self._begin(committed)

    def expect(self, answer: str) -> None:
        """Before the commit: how the answer ahead begins, as far as it is known."""
        if self._ahead and _agree(self._ahead, answer):
            return
        if self._ahead:
            self._again(committed=False)
        clauses = ClauseSplitter().push(answer)
        if clauses:
            # What follows a mark decides whether the clause ends there.
            follows = _ONE_MORE.match(answer, len(clauses[0].text))
            self._ahead = answer[: follows.end()] if follows else answer
            self.lane.work.update(SpeechText(self._ahead, final=False))

    def commit(self) -> None:
        """Raises: Exhausted."""
        if not self.lane.work.committed:
            self.lane.work.promote()
        if not self._ahead:
            self.lane.open = True

    def say(self, text: str, final: bool) -> None:
        """More of the committed answer; `final` ends it."""
        self._said += text
        self._ended = final
        if final and not self._said.strip():
            self._turn.drop(self.lane)
        elif not self.lane.open:
            self._confirm()
        elif text or final:
            self.lane.work.update(SpeechText(text, final))

    def _confirm(self) -> None:
        """Rules 2 and 3."""
        if self._said.startswith(self._ahead):
            rest = self._said[len(self._ahead) :]
        elif not self._ended and _agree(self._ahead, self._said):
            return
        else:
            try:
                self._again(committed=True)
            except UpbeatError as error:
                self._turn.fail_later(error)
                return
            rest = self._said
        self.lane.open = True
        self.lane.work.update(SpeechText(rest, self._ended))

    def _again(self, committed: bool) -> None:
        self._turn.drop(self.lane)
        self._ahead = ""
        self.lane = self._begin(committed)
        self.moved = True
        self._moved(self.lane.work)

    def _begin(self, committed: bool) -> AudioLane:
        lane = AudioLane(self._submit(committed), Pacer())
        lane.open = False
        self._turn.add(lane)
        return lane


def _agree(left: str, right: str) -> bool:
    """Whether one begins with the other."""
    return left.startswith(right) or right.startswith(left)
