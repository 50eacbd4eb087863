"""Every slice and preemption as Chrome/Perfetto trace events, recorded on request."""

from __future__ import annotations

import msgspec

from server.executor.slices import Slice

CLASS_NAMES = ("REALTIME", "INTERACTIVE", "STANDARD", "BATCH")


class Tracer:
    """Keeps events between `start` and `finish`. Owner: the executor thread.

    One row a pipeline; each stretch on the device is a complete event, a suspension an instant one.
    """

    def __init__(self) -> None:
        self._events: list[dict[str, object]] | None = None

    @property
    def on(self) -> bool:
        return self._events is not None

    def start(self) -> None:
        """Forget what was recorded before."""
        self._events = []

    def stretch(self, piece: Slice, start_s: float, end_s: float, outcome: str) -> None:
        """`piece` was on the device from start to end; outcome is "commit", "suspend", "close" or "fail"."""
        if self._events is None:
            return
        common = {"pid": 1, "tid": piece.slot.pipeline, "cat": CLASS_NAMES[piece.slot.rank]}
        jobs = [job.id for job in piece.rows]
        self._events.append(
            {
                **common,
                "name": f"{piece.batch.kind} x{len(jobs)}",
                "ph": "X",
                "ts": start_s * 1e6,
                "dur": (end_s - start_s) * 1e6,
                "args": {"jobs": jobs, "outcome": outcome, "units": piece.batch.units},
            }
        )
        if outcome == "suspend":
            self._events.append({**common, "name": "preempted", "ph": "i", "s": "t", "ts": end_s * 1e6})

    def finish(self) -> bytes:
        """The trace as JSON; recording ends."""
        events, self._events = self._events or [], None
        return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})
