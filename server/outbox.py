"""The only way from a job to a client: a bounded buffer of chunks in the gateway.

Rules:
  1. The device holds `capacity` credits at the start, spends one a chunk and parks the job at none. A chunk
     that leaves the outbox gives its credit back, so it never holds more than `capacity` chunks (and one
     last Done or Failed, which costs nothing).
  2. After `discard` nothing leaves any more, whatever still arrives.
  3. One reader. Owner: the gateway's event loop.
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
        assert len(self._chunks) <= self.capacity, "the device spent credits it did not have"
        self._chunks.append(chunk)
        self._arrived.set()

    def fail(self, error: UpbeatError) -> None:
        """The job has ended by an error, which the reader meets behind what has already arrived."""
        if not self._ended and not self._discarded:
            self._ended = True
            self._chunks.append(error)
            self._arrived.set()

    def discard(self) -> None:
        """Nothing leaves from now on; a waiting reader is woken and meets the end."""
        self._discarded = True
        self._chunks.clear()
        self._arrived.set()

    async def get(self) -> Chunk | None:
        """The next chunk; Done is the last one; None after `discard`.

        Raises: UpbeatError, when the job failed.
        """
        while not self._chunks:
            if self._discarded:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        chunk = self._chunks.popleft()
        if isinstance(chunk, UpbeatError):
            raise chunk
        if not isinstance(chunk, Done):
            self._grant(1)
        return chunk
