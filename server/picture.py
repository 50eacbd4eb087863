"""The image of one turn: one, drawn from the committed prompt or from the model's caption.

Rules
1. Before the commit it may be begun: it has credit for one chunk, so it parks behind its first preview. That
   stays here.
2. At the commit it goes on if it is of the right prompt, else it is thrown away and begun anew.
Owner: the turn's answer.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.errors import UpbeatError
from server.dispatch import Work
from server.lanes import ImageLane, Lane
from server.turn import Turn


class Picture:
    """submit(prompt, committed) gives an image job, or raises."""

    def __init__(self, turn: Turn, submit: Callable[[str, bool], Work]) -> None:
        self._turn = turn
        self._submit = submit
        self._lane: ImageLane | None = None
        self._prompt = ""
        self._drawn = False

    def expect(self, prompt: str) -> None:
        """Before the commit: what is probably to be drawn."""
        if prompt == self._prompt or self._drawn:
            return
        self.drop()
        try:
            self._begin(prompt, committed=False)
        except UpbeatError:
            return

    def draw(self, prompt: str) -> None:
        """After the commit. Only the first call draws."""
        if self._drawn:
            return
        self._drawn = True
        try:
            if self._lane is not None and prompt == self._prompt:
                self._lane.work.promote()
                self._lane.open = True
                self._turn.changed()
            else:
                self.drop()
                self._begin(prompt, committed=True)
        except UpbeatError as error:
            self.drop()
            self._turn.fail_later(error)

    def drop(self) -> None:
        """What was begun is thrown away."""
        lane, self._lane, self._prompt = self._lane, None, ""
        if lane is not None:
            self._turn.drop(lane)

    def settle(self) -> None:
        """What was begun and not asked for is thrown away."""
        if not self._drawn:
            self.drop()

    def failed(self, lane: Lane) -> bool:
        """Whether the lane that failed was work ahead."""
        if lane is not self._lane or self._drawn:
            return False
        self._lane = None
        return True

    def _begin(self, prompt: str, committed: bool) -> None:
        lane = ImageLane(self._submit(prompt, committed))
        lane.open = committed
        self._lane, self._prompt = lane, prompt
        self._turn.add(lane)
