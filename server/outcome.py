"""What a turn consumed and when things happened, gathered over its jobs. Pure."""

from __future__ import annotations

import msgspec

from pipelines.messages import AudioChunk, DeviceTimings, Done, FinishReason, TokenChunk, Usage
from server.events import Body, Discarded, ImagePart, Timings


class Outcome:
    """One turn's marks. Seconds in, milliseconds after `committed_s` out. notes: tokens of the thoughts that
    the answer is to follow. Owner: the turn."""

    def __init__(self, started_s: float) -> None:
        self.committed_s = started_s
        self.notes = 0
        self._answered = False
        self._marks: dict[str, float] = {}
        self._dones: dict[str, Done] = {}
        self._thoughts = DeviceTimings()
        self._wasted = 0

    def note(self, body: Body, now_s: float) -> None:
        """An event is about to leave."""
        match body:
            case TokenChunk():
                self._marks.setdefault("first_token", now_s)
                self._marks["last_token"] = now_s
            case AudioChunk():
                self._marks.setdefault("first_audio", now_s)
            case ImagePart(final=False):
                self._marks.setdefault("first_preview", now_s)
            case ImagePart(final=True, part=part, parts=parts) if part == parts - 1:
                self._marks["image"] = now_s
            case Discarded():
                self._marks.pop("first_token", None)
                self._marks.pop("last_token", None)
            case _:
                return

    def commit(self, at_s: float) -> None:
        """The prompt is complete, and what was noted of it is used."""
        self.committed_s, self._answered = at_s, True

    def waste(self, tokens: int) -> None:
        """So many tokens were generated ahead of the commit for nothing."""
        self._wasted += tokens

    def job_done(self, modality: str, done: Done) -> None:
        """A job has ended. What transcription and thoughts took is not the answer's usage, their device time
        is."""
        if modality == "thought":
            self._thoughts = _sum(self._thoughts, done.timings)
        else:
            self._dones[modality] = done

    def reason(self) -> FinishReason:
        """Why the answer ended: the text's reason, where there is text."""
        dones = list(self._dones.values())
        answer = self._dones.get("text") or (dones[-1] if dones else None)
        return answer.reason if answer else FinishReason.STOP

    def usage(self) -> Usage:
        """Field by field the sum over the jobs of the answer."""
        total = dict.fromkeys(Usage.__struct_fields__, 0)
        for modality, done in self._dones.items():
            if modality != "transcription":
                for name, value in msgspec.structs.asdict(done.usage).items():
                    total[name] += value
        total["wasted_tokens"] += self._wasted + (0 if self._answered else self.notes)
        return Usage(**total)

    def timings(self, now_s: float) -> Timings:
        lowered = [f"{name}: {done.quality}" for name, done in self._dones.items() if done.quality != "full"]
        return Timings(
            first_token_ms=self._after_commit("first_token"),
            last_token_ms=self._after_commit("last_token"),
            first_audio_ms=self._after_commit("first_audio"),
            first_preview_ms=self._after_commit("first_preview"),
            image_ms=self._after_commit("image"),
            total_ms=1000.0 * (now_s - self.committed_s),
            quality="; ".join(lowered) or "full",
            jobs=self.device(),
        )

    def device(self) -> dict[str, DeviceTimings]:
        timings = {name: done.timings for name, done in self._dones.items()}
        return timings | {"thought": self._thoughts} if self._thoughts.slices else timings

    def _after_commit(self, mark: str) -> float | None:
        at_s = self._marks.get(mark)
        return None if at_s is None else 1000.0 * (at_s - self.committed_s)


def _sum(left: DeviceTimings, right: DeviceTimings) -> DeviceTimings:
    return DeviceTimings(*(getattr(left, name) + getattr(right, name) for name in left.__struct_fields__))
