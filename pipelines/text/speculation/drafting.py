"""Which tokens each row of a slice drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines.text.packing import draws
from pipelines.text.planner import Row
from pipelines.text.state import TextState

MOST = 32


class Drafting:
    """Owner: the executor thread."""

    def __init__(self, context: int) -> None:
        self._context = context

    def add_drafts(self, rows: Sequence[Row], spare: Callable[[], int]) -> Sequence[Row]:
        """The rows with the drafts that they check. spare: how many tokens there is room for."""
        wanting = [row for row in rows if _state(row).given is not None and draws(_state(row), row.count)]
        if not wanting:
            return rows
        room = spare()
        drafts: dict[int, tuple[int, ...]] = {}
        for row in wanting:
            draft = self._draft(_state(row), min(MOST, room))
            room -= len(draft)
            drafts[row.job.id] = draft
        return [Row(row.job, row.count, drafts.get(row.job.id, ())) for row in rows]

    def _draft(self, state: TextState, room: int) -> tuple[int, ...]:
        assert state.given is not None
        left = min(state.sampling.max_tokens - state.drawn, self._context - len(state.tokens)) - 1
        state.given.follow(state.tokens, state.prompt_length)
        return state.given.propose(min(room, left))


def _state(row: Row) -> TextState:
    state = row.job.state
    assert isinstance(state, TextState)
    return state
