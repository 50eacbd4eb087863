"""A turn's lanes: each takes the chunks of one job and turns them into events, when they may leave.

A lane never waits. `next` gives an event's body or None; `done` is set once the job's Done has been met and
everything before it has left. A job's failure comes out of `next` as its UpbeatError.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from pipelines.errors import UpbeatError
from pipelines.messages import AudioChunk, Chunk, Done, ImageChunk, Playback, TokenChunk, TranscriptChunk
from server.dispatch import Work
from server.drawing import DrawFilter, Shown
from server.early import Early
from server.events import Body, Discarded, ImagePart
from server.pacing import Pacer

PIECE_MS = 100.0
MAX_TOKENS_PER_EVENT = 256
MAX_CHARS_PER_EVENT = 16_384
IMAGE_PART_BYTES = 1 << 20


class Lane(Protocol):
    """One job's way into the turn's events. wasted: so many tokens, generated ahead of the commit, are for
    nothing if the job ends before its Done."""

    modality: str
    work: Work
    done: Done | None

    @property
    def wasted(self) -> int: ...

    def next(self, now_s: float) -> Body | None:
        """What may leave now. Raises: UpbeatError, when the job failed."""

    def wait_s(self, now_s: float) -> float:
        """Seconds until something may leave without anything arriving; inf if never."""


class TextLane:
    """Tokens that are there together leave together, without drawing tags.

    hear(text, final): what the reader sees is also to be spoken; draw(caption): the model asks for an image.
    `text` is all that was shown so far. Chunks of revisions before `revision` are dropped.
    """

    modality = "text"

    def __init__(
        self,
        work: Work,
        hear: Callable[[str, bool], None] | None = None,
        draw: Callable[[str], None] | None = None,
        tags: bool = False,
        early: Early | None = None,
    ) -> None:
        """tags: leave drawing tags in the text. early: the prompt is not committed."""
        self.work = work
        self.done: Done | None = None
        self.text = ""
        self.wasted = 0
        self.revision = 0
        self._before = 0
        self._tags = tags
        self._filter = None if tags else DrawFilter()
        self._hear = hear
        self._draw = draw
        self._early = early
        self._captions: list[str] = []
        self._held: list[TokenChunk] = []
        self._failure: UpbeatError | None = None

    def supersede(self, revision: int) -> None:
        """A newer revision is answered from its beginning; what was shown of the one before does not hold."""
        self.revision = revision
        if self._early is not None:
            self._early.supersede(shown=bool(self.text))
        self.text = ""
        self._held.clear()
        self._captions.clear()
        self._filter = None if self._tags else DrawFilter()

    def give_up(self) -> list[Discarded]:
        """The job is dropped. Returns what the client has yet to be told of it."""
        if self._early is None:
            return []
        self._early.supersede(shown=bool(self.text))
        return list(self._early.stale)

    def commit(self) -> None:
        """The prompt is committed: its answer may leave, be spoken, and draw."""
        if self._early is None:
            return
        self._early.committed = True
        self.wasted = max(0, self.wasted - self._early.tokens)
        self._before = self.wasted
        if self._hear is not None and self.text:
            self._hear(self.text, False)
        self._call_for(self._captions)
        self._captions = []

    def next(self, now_s: float) -> TokenChunk | Discarded | None:
        if self._failure is not None:
            raise self._failure
        if self._early is not None and self._early.stale:
            return self._early.stale.popleft()
        if self._closed:
            self._gather()
            return None
        text = self._drain()
        self.text += text
        if self._hear is not None and not self._ahead and (text or self.done is not None):
            self._hear(text, self.done is not None)
        if not text and (self.done is None or not self._held):
            return None
        held, self._held = self._held, []
        return _joined(text, held)

    def wait_s(self, now_s: float) -> float:
        return math.inf

    @property
    def _ahead(self) -> bool:
        return self._early is not None and not self._early.committed

    @property
    def _closed(self) -> bool:
        return self._ahead and self._early is not None and not self._early.shows

    def _gather(self) -> None:
        """Keeps what arrives ahead of the commit."""
        assert self._early is not None
        while (chunk := self.work.take()) is not None:
            if self._holds(chunk):
                self._early.keep(chunk)

    def _take(self) -> Chunk | None:
        """The next chunk that holds, kept or new."""
        if self._early is not None and self._early.kept:
            return self._early.kept.popleft()
        while (chunk := self.work.take()) is not None:
            if self._holds(chunk):
                if self._early is not None and self._ahead:
                    self._early.tell(chunk)
                return chunk
        return None

    def _holds(self, chunk: Chunk) -> bool:
        """Whether it belongs to the answer that holds now. What it was for nothing counts either way."""
        if not isinstance(chunk, TokenChunk):
            return True
        stale = 0 < chunk.revision < self.revision
        if self._early is not None and (stale or self._ahead):
            self._early.charge(len(chunk.token_ids))
        if stale:
            self._before = chunk.wasted
        # What was on its way at the commit does not know that it holds; only what came before it does not.
        self.wasted = chunk.wasted if stale or self._ahead else min(chunk.wasted, self._before)
        return not stale

    def _drain(self) -> str:
        """Takes what has arrived; a failure behind it is kept for the next call. Returns what to show."""
        text = ""
        while self.done is None and not (text and self._full(text)):
            try:
                chunk = self._take()
            except UpbeatError as error:
                if not text:
                    raise
                self._failure = error
                break
            if chunk is None:
                break
            if isinstance(chunk, Done):
                self.done = chunk
                text += self._show(self._filter.close() if self._filter else Shown())
            elif isinstance(chunk, TokenChunk):
                if self._early is not None:
                    self._early.shown = chunk.revision
                self._held.append(chunk)
                text += self._show(self._filter.feed(chunk.text) if self._filter else Shown(chunk.text))
        return text

    def _full(self, text: str) -> bool:
        return len(text) >= MAX_CHARS_PER_EVENT or len(self._held) >= MAX_TOKENS_PER_EVENT

    def _show(self, shown: Shown) -> str:
        if self._ahead:
            self._captions += shown.captions
        else:
            self._call_for(shown.captions)
        return shown.text

    def _call_for(self, captions: Iterable[str]) -> None:
        if self._draw is not None:
            for caption in captions:
                self._draw(caption)


class AudioLane:
    """Speech in small pieces, paced; tells the device how far the listener is. Nothing leaves until it is
    open."""

    modality = "speech"
    wasted = 0

    def __init__(self, work: Work, pacer: Pacer) -> None:
        self.work = work
        self.pacer = pacer
        self.open = True
        self.done: Done | None = None
        self._chunk: AudioChunk | None = None
        self._offset = 0

    def next(self, now_s: float) -> AudioChunk | None:
        if not self.open:
            return None
        if self._chunk is None:
            self._fetch()
        if self._chunk is None or self.pacer.wait_s(self._piece_ms(), now_s) > 0.0:
            return None
        piece = self._cut(self._chunk)
        self.pacer.wrote(_duration_ms(len(piece.pcm16), piece.sample_rate), now_s)
        self.tell(now_s)
        return piece

    def wait_s(self, now_s: float) -> float:
        return math.inf if self._chunk is None else self.pacer.wait_s(self._piece_ms(), now_s)

    def tell(self, now_s: float) -> None:
        """The device sets the next chunk's deadline by this."""
        played_ms = self.pacer.played_ms(now_s)
        self.work.update(Playback(round(played_ms), round(self.pacer.buffered_ms(now_s))))

    def _fetch(self) -> None:
        while self._chunk is None and self.done is None:
            chunk = self.work.take()
            if chunk is None:
                return
            if isinstance(chunk, Done):
                self.done = chunk
            elif isinstance(chunk, AudioChunk) and chunk.pcm16:
                self._chunk, self._offset = chunk, 0

    def _piece_ms(self) -> float:
        chunk = self._chunk
        if chunk is None:
            return 0.0
        return min(PIECE_MS, _duration_ms(len(chunk.pcm16) - self._offset, chunk.sample_rate))

    def _cut(self, chunk: AudioChunk) -> AudioChunk:
        size = len(chunk.pcm16)
        end = size
        if not math.isinf(self.pacer.ahead_ms):
            end = min(size, self._offset + 2 * int(chunk.sample_rate * PIECE_MS / 1000.0))
        start_ms = chunk.start_ms + int(_duration_ms(self._offset, chunk.sample_rate))
        piece = AudioChunk(chunk.pcm16[self._offset : end], chunk.sample_rate, start_ms)
        self._offset = end
        if end == size:
            self._chunk = None
        return piece


class ImageLane:
    """Previews and the image, in parts of at most 1 MiB. Nothing leaves until it is open."""

    modality = "image"
    wasted = 0

    def __init__(self, work: Work) -> None:
        self.work = work
        self.open = True
        self.done: Done | None = None
        self._parts: deque[ImagePart] = deque()

    def next(self, now_s: float) -> ImagePart | None:
        if not self.open:
            return None
        if not self._parts:
            self._fetch()
        return self._parts.popleft() if self._parts else None

    def _fetch(self) -> None:
        chunk = self.work.take()
        if isinstance(chunk, ImageChunk):
            self._parts.extend(_parts(chunk))
        elif isinstance(chunk, Done):
            self.done = chunk

    def wait_s(self, now_s: float) -> float:
        return math.inf


class TranscriptLane:
    """What was heard, also told to `heard`; what says nothing, to it alone. first: leaves before all else."""

    modality = "transcription"
    wasted = 0

    def __init__(
        self,
        work: Work,
        heard: Callable[[TranscriptChunk], None] | None = None,
        first: TranscriptChunk | None = None,
    ) -> None:
        self.work = work
        self.done: Done | None = None
        self._heard = heard
        self._first = first
        self._released = False

    def release(self) -> None:
        """Nothing of the job is this lane's any more."""
        self._released = True

    def next(self, now_s: float) -> TranscriptChunk | None:
        first, self._first = self._first, None
        if first is not None:
            return first
        while not self._released and (chunk := self.work.take()) is not None:
            if isinstance(chunk, Done):
                self.done = chunk
                return None
            assert isinstance(chunk, TranscriptChunk), chunk
            if self._heard is not None:
                self._heard(chunk)
            if chunk.text:
                return chunk
        return None

    def wait_s(self, now_s: float) -> float:
        return math.inf


def _joined(text: str, chunks: list[TokenChunk]) -> TokenChunk:
    return TokenChunk(
        text,
        tuple(token for chunk in chunks for token in chunk.token_ids),
        chunks[-1].revision if chunks else 0,
        tuple(value for chunk in chunks for value in chunk.logprobs),
        tuple(top for chunk in chunks for top in chunk.top),
    )


def _parts(image: ImageChunk) -> list[ImagePart]:
    data = memoryview(image.data)
    count = max(1, math.ceil(len(data) / IMAGE_PART_BYTES))
    return [
        ImagePart(
            bytes(data[number * IMAGE_PART_BYTES : (number + 1) * IMAGE_PART_BYTES]),
            image.mime,
            image.width,
            image.height,
            image.step,
            image.steps,
            image.final,
            number,
            count,
        )
        for number in range(count)
    ]


def _duration_ms(size: int, sample_rate: int) -> float:
    return 1000.0 * (size // 2) / sample_rate
