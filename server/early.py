"""What arrives of an answer before its prompt is committed. Owner: the turn's text lane."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pipelines.messages import Chunk, TokenChunk
from server.drawing import DrawFilter
from server.events import Discarded


class Early:
    """The answer ahead, kept until the commit, or shown at once if the client asked for that.

    told(chunk): a token has arrived ahead, of the answer that holds now, which has `tokens` of them.
    charge(tokens): so many were generated ahead, whether they hold or not. `shown`: the revision of the last
    token that was shown. `stale`: what the client has yet to be told.
    """

    def __init__(
        self, told: Callable[[TokenChunk], None], charge: Callable[[int], None], shows: bool = False
    ) -> None:
        self.shows = shows
        self.committed = False
        self.kept: deque[Chunk] = deque()
        self.stale: deque[Discarded] = deque()
        self.shown = 0
        self.tokens = 0
        self.charge = charge
        self._told = told

    def keep(self, chunk: Chunk) -> None:
        """Until the commit."""
        self.kept.append(chunk)
        self.tell(chunk)

    def tell(self, chunk: Chunk) -> None:
        if isinstance(chunk, TokenChunk):
            self.tokens += len(chunk.token_ids)
            self._told(chunk)

    def supersede(self, shown: bool) -> None:
        """Another revision is answered. shown: text of the one before has left."""
        self.kept.clear()
        self.tokens = 0
        if shown:
            self.stale.append(Discarded(self.shown))


class Expected:
    """How the answer ahead begins: what a reader would see of it, and the first image it asks for."""

    def __init__(self) -> None:
        self.text = ""
        self.caption = ""
        self._filter = DrawFilter()

    def add(self, text: str) -> None:
        shown = self._filter.feed(text)
        self.text += shown.text
        if shown.captions and not self.caption:
            self.caption = shown.captions[0]
