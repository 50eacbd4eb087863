"""Every slice and preemption as Chrome trace events (Perfetto shows them), recorded on request."""

from __future__ import annotations

import msgspec

from server.executor.slices import Slice

CLASS_NAMES = ("REALTIME", "INTERACTIVE", "STANDARD", "BATCH", "SPARE")
MAX_EVENTS = 200_000
Event = dict[str, object]


class Tracer:
    """Keeps events between `start` and `finish`. Owner: the executor thread.

    One track a pipeline; each stretch on the device is a complete event, a suspension and a job's arrival
    are instant ones. Times are microseconds from the start of the trace.
    """

    def __init__(self) -> None:
        self._events: list[Event] | None = None
        self._tracks: dict[str, int] = {}
        self._start_s = 0.0

    @property
    def on(self) -> bool:
        return self._events is not None

    def start(self, now_s: float) -> None:
        """Forget what was recorded before."""
        self._events, self._tracks, self._start_s = [], {}, now_s

    def arrival(self, pipeline: str, job_id: int, rank: int, now_s: float) -> None:
        """A job has come."""
        self._instant(f"job {job_id} arrives", pipeline, rank, now_s)

    def stretch(self, piece: Slice, start_s: float, end_s: float, outcome: str) -> None:
        """`piece` was on the device from start to end; outcome is "commit", "suspend", "close" or "fail"."""
        if self._events is None or len(self._events) >= MAX_EVENTS:
            return
        jobs = [job.id for job in piece.rows]
        args = {"jobs": jobs, "outcome": outcome, "units": piece.batch.units}
        args |= {"predicted_ms": round(piece.expected_ms, 2), "device_ms": round(piece.device_ms, 2)}
        event = self._common(
            f"{piece.batch.kind} x{len(jobs)}", piece.slot.pipeline, piece.slot.rank, start_s
        )
        self._events.append({**event, "ph": "X", "dur": round((end_s - start_s) * 1e6), "args": args})
        if outcome == "suspend":
            self._instant("preempted", piece.slot.pipeline, piece.slot.rank, end_s)

    def finish(self) -> bytes:
        """The trace as JSON; recording ends."""
        events, self._events = self._events or [], None
        names = [
            {"ph": "M", "name": "thread_name", "pid": 1, "tid": track, "args": {"name": name}}
            for name, track in self._tracks.items()
        ]
        return msgspec.json.encode({"traceEvents": [*names, *events], "displayTimeUnit": "ms"})

    def _instant(self, name: str, pipeline: str, rank: int, now_s: float) -> None:
        if self._events is not None and len(self._events) < MAX_EVENTS:
            self._events.append({**self._common(name, pipeline, rank, now_s), "ph": "i", "s": "t"})

    def _common(self, name: str, pipeline: str, rank: int, now_s: float) -> Event:
        track = self._tracks.setdefault(pipeline, len(self._tracks) + 1)
        when = round((now_s - self._start_s) * 1e6)
        return {"pid": 1, "tid": track, "cat": CLASS_NAMES[rank], "name": name, "ts": when}
