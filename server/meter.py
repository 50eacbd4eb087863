"""Measures one stream: gaps between its events and how soon an interruption is obeyed."""

from __future__ import annotations

from pipelines.messages import AudioChunk, FinishReason, TokenChunk
from server.clock import Clock
from server.events import Event, TurnDone
from server.metrics import Metrics

KINDS: dict[type, str] = {TokenChunk: "token", AudioChunk: "audio"}


class Meter:
    """Owner: the stream's handler."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._last: dict[str, float] = {}
        self._interrupted_s: float | None = None

    def interrupted(self) -> None:
        """The client has asked for silence."""
        self._interrupted_s = self._clock.now()

    def wrote(self, event: Event) -> None:
        """The event has been handed to the transport."""
        now_s = self._clock.now()
        body = event.body
        if isinstance(body, TurnDone):
            self._last.clear()
            if body.reason is FinishReason.INTERRUPTED and self._interrupted_s is not None:
                self._metrics.barge_in(now_s - self._interrupted_s)
                self._interrupted_s = None
            return
        kind = KINDS.get(type(body))
        if kind is not None:
            if kind in self._last:
                self._metrics.gap(kind, now_s - self._last[kind])
            self._last[kind] = now_s
