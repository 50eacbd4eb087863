"""One thought on its way: gathered whole, then reported if wanted."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipelines.messages import Done, TokenChunk
from pipelines.simultaneous import layout
from server.dispatch import Work
from server.events import Thought


class ThoughtLane:
    """A lane of the turn. ended(lane, done) once the reply to `piece` is complete."""

    modality = "thought"

    def __init__(
        self,
        work: Work,
        piece: str,
        revision: int,
        ended: Callable[[ThoughtLane, Done], None],
        report: bool,
    ) -> None:
        self.work = work
        self.piece = piece
        self.text = ""
        self.wasted = 0
        self.done: Done | None = None
        self._revision = revision
        self._ended = ended
        self._report = report

    def next(self, now_s: float) -> Thought | None:
        while self.done is None and (chunk := self.work.take()) is not None:
            if isinstance(chunk, TokenChunk):
                self.text += chunk.text
                self.wasted += len(chunk.token_ids)
            elif isinstance(chunk, Done):
                self.done = chunk
                self._ended(self, chunk)
                action, text = layout.parse(self.text)
                return Thought(self._revision, action, text) if self._report else None
        return None

    def wait_s(self, now_s: float) -> float:
        return math.inf
