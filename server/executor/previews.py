"""Previews by time: which of those that a pipeline makes may leave."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.contract import Emitted, Job, RawImage
from pipelines.messages import ImageRequest


def due(job: Job, chunk: Emitted, clock: Callable[[], float]) -> bool:
    """Whether a preview comes `preview_ms` after the last one; whatever else is emitted may leave. A preview
    that may not is dropped before it costs a credit or is encoded, and after it was recorded: a replay makes
    it again."""
    if not isinstance(chunk, RawImage) or chunk.final:
        return True
    assert isinstance(job.request, ImageRequest)
    now_s = clock()
    if now_s - job.previewed_s < job.request.preview_ms / 1000:
        return False
    job.previewed_s = now_s
    return True
