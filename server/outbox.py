"""The only way from a job to a client: a bounded buffer of chunks in the gateway.

Rules:
  1. The device holds `capacity` credits at the start, spends one a chunk and parks the job at none. A chunk
     that leaves the outbox gives its credit back, so it never holds more than `capacity` chunks and what
     one slice may add to the last credit. Done and Failed cost nothing.
  2. After `discard` nothing leaves any more, whatever still arrives.
  3. One reader. Owner: the gateway's event loop. It either awaits `get`, or is told by `on_arrival` and
     calls `take`, which never waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pipelines.errors import UpbeatError, rebuild
from pipelines.messages import Chunk, Done, Failed


class Outbox:
    """Chunks of one job on their way out. `grant(count)` returns credits to the device."""

    def __init__(self, capacity: int, grant: Callable[[int], None]) -> None:
        self.capacity = capacity
        self.on_arrival: Callable[[], object] | None = None
        self._grant = grant
        self._chunks: deque[Chunk | UpbeatError] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._discarded = False

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def ended(self) -> bool:
        """Whether the job's last chunk has arrived (it may still be inside)."""
        return self._ended

    def put(self, chunk: Chunk) -> None:
        """From the link. Chunks behind the last one, or after `discard`, are dropped."""
        if self._ended or self._discarded:
            return
        if isinstance(chunk, Failed):
            self.fail(rebuild(chunk.kind, chunk.message, chunk.field, chunk.retry_after_s))
            return
        if isinstance(chunk, Done):
            self._ended = True
        self._chunks.append(chunk)
        self._wake()

    def fail(self, error: UpbeatError) -> None:
        """The job has ended by an error, which the reader meets behind what has already arrived."""
        if not self._ended and not self._discarded:
            self._ended = True
            self._chunks.append(error)
            self._wake()

    def discard(self) -> None:
        """Nothing leaves from now on; a waiting reader is woken and meets the end."""
        self._discarded = True
        self._chunks.clear()
        self._wake()

    async def get(self) -> Chunk | None:
        """The next chunk; Done is the last one; None after `discard`.

        Raises: UpbeatError, when the job failed.
        """
        while not self._chunks:
            if self._discarded:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self.take()

    def take(self) -> Chunk | None:
        """The next chunk if one is there, without waiting; Done is the last one.

        Raises: UpbeatError, when the job failed.
        """
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        if isinstance(chunk, UpbeatError):
            raise chunk
        if not isinstance(chunk, Done):
            self._grant(1)
        return chunk

    def _wake(self) -> None:
        self._arrived.set()
        if self.on_arrival is not None:
            self.on_arrival()
