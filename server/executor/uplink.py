"""From the executor to the gateway: finishing (PCM, image encoding) and sending, off the executor's thread.

Two threads: images are encoded on one, so that a large PNG holds up no token; all else is finished and
sent on the other. Chunks of one job stay in order, since a job's images and its end take the same way.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from pipelines.contract import Emitted, Job
from pipelines.finishing import Finisher
from pipelines.messages import Chunk, Done, Emit, Failed, ImageRequest

Item = tuple[int, Emitted, Finisher | None] | None


class Uplink:
    """`emit` is called on the executor's thread and returns at once; `send` on a thread of the uplink's."""

    def __init__(self, send: Callable[[Emit], None], forget: Callable[[int], None]) -> None:
        self._send = send
        self._forget = forget
        self._finishers: dict[int, Finisher] = {}
        self._plain: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._images: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(way,), name=name, daemon=True)
            for way, name in ((self._plain, "upbeat-uplink"), (self._images, "upbeat-encoder"))
        ]
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send what is queued and end."""
        self._plain.put(None)
        self._images.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def emit(self, job: Job, chunk: Emitted) -> None:
        """A chunk leaves the executor."""
        finisher = self._finishers.get(job.id)
        if finisher is None and not isinstance(chunk, Failed):
            finisher = self._finishers[job.id] = Finisher(job.request)
        if isinstance(chunk, Done | Failed):
            self.drop(job.id)
        way = self._images if isinstance(job.request, ImageRequest) else self._plain
        way.put((job.id, chunk, finisher))

    def drop(self, job_id: int) -> None:
        """The job is gone; from any thread, more than once if need be."""
        self._finishers.pop(job_id, None)
        self._forget(job_id)

    def _work(self, way: queue.SimpleQueue[Item]) -> None:
        while (item := way.get()) is not None:
            job_id, chunk, finisher = item
            for finished in finisher.finish(chunk) if finisher is not None else _refusal(chunk):
                with self._lock:
                    self._send(Emit(job_id, finished))


def _refusal(chunk: Emitted) -> list[Chunk]:
    """A job that was never admitted says one thing only."""
    assert isinstance(chunk, Failed)
    return [chunk]
