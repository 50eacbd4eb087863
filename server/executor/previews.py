"""Previews by time: which of those that a pipeline makes may leave."""

from __future__ import annotations

from pipelines.contract import Job, RawImage
from pipelines.messages import ImageRequest


def due(job: Job, picture: RawImage, now_s: float) -> bool:
    """Whether it comes `preview_ms` after the last one; an image always may leave. A preview that may not is
    dropped before it costs a credit or is encoded, and after it was recorded: a replay makes it again."""
    assert isinstance(job.request, ImageRequest)
    if picture.final:
        return True
    if now_s - job.previewed_s < job.request.preview_ms / 1000:
        return False
    job.previewed_s = now_s
    return True
