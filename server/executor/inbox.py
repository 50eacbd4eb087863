"""The one door into the executor's thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.errors import UpbeatError
from pipelines.messages import Down


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message with what `Pipeline.prepare` made of it, or the error that it raised.

    first: what was prepared from a Submit's `first` input, if it had one.
    """

    message: Down
    prepared: object = None
    first: object = None
    error: UpbeatError | None = None


class Inbox:
    """Any thread posts, the executor takes. A deque's append and popleft are atomic; the event only wakes."""

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._awake = threading.Event()

    def post(self, arrival: Arrival) -> None:
        """From any thread."""
        self._arrivals.append(arrival)
        self._awake.set()

    def take(self) -> Iterator[Arrival]:
        """All that has arrived, oldest first."""
        while self._arrivals:
            yield self._arrivals.popleft()

    def wait(self, timeout_s: float) -> None:
        """Until something arrives or the time is up."""
        if not self._arrivals:
            self._awake.wait(timeout_s)
        self._awake.clear()
