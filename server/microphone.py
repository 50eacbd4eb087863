"""The open microphone of a conversation that goes on from turn to turn without hands.

Rules:
  1. One job listens, from the first piece of audio on. It is ended by the end of the requests, by whatever
     ends a turn that is being spoken other than its silence, and with the stream.
  2. From where speech has begun to its silence it is a turn's (`spoken` is true) and takes a place among
     those who are listened to; in between the session asks it, and its place is free for others.
  3. What is remembered of the audio is bounded: when the last `REMEMBERED_S` arrived.
Owner: the session.
"""

from __future__ import annotations

import math

from pipelines.errors import InvalidRequest
from pipelines.messages import Chunk, JobClass, SpeechAudio, TranscribeRequest
from server.desk import Desk
from server.listening import Arrivals

REMEMBERED_S = 60.0


class Microphone:
    """Raises, where nobody can listen: Draining, Exhausted, DeviceLost."""

    def __init__(self, desk: Desk, sample_rate: int) -> None:
        plan = desk.plan
        assert plan.transcription is not None, "asked for only where audio was announced"
        self.sample_rate = sample_rate or plan.audio_sample_rate
        self.arrivals = Arrivals(self.sample_rate, REMEMBERED_S)
        self.spoken = False
        self.finished = False
        self._since_ms = math.inf
        self._max_s = desk.max_audio_s
        request = TranscribeRequest(self.sample_rate, open=True)
        order = desk.order(f"{desk.session_id}.microphone", plan.transcription, JobClass.REALTIME, request)
        self.work = desk.dispatcher.submit(order, rests=True)

    def hear(self, pcm16: bytes, sample_rate: int, now_s: float) -> None:
        """A piece of audio. Raises: InvalidRequest at another rate, and beyond the longest utterance."""
        if sample_rate not in (0, self.sample_rate):
            raise InvalidRequest("audio.sample_rate", f"must stay {self.sample_rate}, not {sample_rate}")
        if self.arrivals.total_ms - self._since_ms > 1000.0 * self._max_s:
            raise InvalidRequest("audio.pcm16", f"a spoken prompt may last {self._max_s:g} s")
        self.arrivals.add(len(pcm16), now_s)
        self.work.update(SpeechAudio(pcm16, final=False))

    def take(self) -> Chunk | None:
        """What it has to say where nobody speaks: that somebody has begun, or that it has ended. Raises:
        UpbeatError, when it failed."""
        return self.work.take()

    def begins(self, start_ms: float) -> None:
        """Speech has begun, and is a turn's now. Raises: Exhausted."""
        self.spoken, self._since_ms = True, start_ms
        if not self.work.committed:
            self.work.enter()

    def rests(self) -> None:
        """It was silence that ended the speech."""
        self.spoken, self._since_ms = False, math.inf
        self.work.rest()

    def finish(self) -> None:
        """No audio comes any more; what has come is listened to."""
        if not self.finished:
            self.finished = True
            self.work.update(SpeechAudio(b"", final=True))

    def close(self) -> None:
        """Nobody is there to be heard."""
        self.finished = True
        self.work.cancel()
