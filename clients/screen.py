"""Shows a turn as it comes in: text grows in place, everything else gets a line of its own."""

from __future__ import annotations

import enum

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from upbeat.v1.types_pb2 import Usage

from clients.answer import Answer
from clients.events import Audio, Discarded, Event, Image, Thought, Token
from clients.media import thumbnail

LABEL_WIDTH = 18
PREVIEW_COLUMNS, IMAGE_COLUMNS = 16, 32
MIN_COLUMNS_FOR_PICTURES = 60
SPEECH_LINE_MS = 2000.0


class Layout(enum.Enum):
    """LOG: everything on lines with a time and a name. CHAT: the text alone, all else dim. TEXT: the text."""

    LOG = enum.auto()
    CHAT = enum.auto()
    TEXT = enum.auto()


class Screen:
    """One terminal, or one pipe. Owner: the task that shows.

    Pictures are drawn where the output is a terminal of at least 60 columns with colours, and told in words
    elsewhere.
    """

    def __init__(self, console: Console, layout: Layout = Layout.LOG) -> None:
        self.console = console
        self._layout = layout
        self._in_text = False
        self._spoken_ms = 0.0
        self._pictures = (
            console.is_terminal
            and console.color_system is not None
            and console.width >= MIN_COLUMNS_FOR_PICTURES
        )

    def label(self, name: str, text: str, at_s: float | None = None) -> None:
        """A line with a name, and the time after the commit where there is one."""
        if self._layout is Layout.TEXT:
            return
        self._break_text()
        self.console.print(self._prefix(name, at_s), end="")
        style = "dim" if self._layout is Layout.CHAT else ""
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def show(self, event: Event, answer: Answer, now_s: float) -> None:
        """An event that `answer` already holds, `now_s` seconds after the commit."""
        match event:
            case Token():
                self._text(event.text, now_s)
            case Audio():
                self._speech(answer, now_s)
            case Image():
                self._image(event, now_s)
            case Thought():
                self.label("thought", f"({event.action}) {event.text}", now_s)
            case Discarded():
                self.label("discarded", f"all of revision {event.revision}", now_s)

    def end(self, answer: Answer, now_s: float) -> None:
        """The turn is over."""
        self._break_text()
        if answer.audio_ms:
            ahead = f"never more than {answer.most_ahead_ms:.0f} ms ahead of playback"
            self.label("speech", f"ends, {answer.audio_ms / 1000:.1f} s of sound, {ahead}", now_s)
        self._spoken_ms = 0.0

    def _text(self, text: str, now_s: float) -> None:
        if not self._in_text:
            if self._layout is Layout.LOG:
                self.console.print(self._prefix("text", now_s), end="")
            self._in_text = True
            text = text.lstrip()
        self.console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    def _speech(self, answer: Answer, now_s: float) -> None:
        ahead = f"{answer.ahead_ms(now_s):.0f} ms ahead of playback"
        if self._spoken_ms == 0:
            self.label("speech", f"begins, {ahead}", now_s)
            self._spoken_ms = answer.audio_ms
        elif answer.audio_ms - self._spoken_ms >= SPEECH_LINE_MS:
            self.label("speech", f"{answer.audio_ms / 1000:.1f} s of sound, {ahead}", now_s)
            self._spoken_ms = answer.audio_ms

    def _image(self, event: Image, now_s: float) -> None:
        if self._layout is not Layout.LOG and not event.final:
            return
        if event.final:
            kind = event.mime.removeprefix("image/").upper()
            words = f"done, {event.width} x {event.height} pixels, {len(event.data):,} bytes of {kind}"
        else:
            words = f"preview, step {event.step} of {event.steps}"
        self.label("image", words, now_s)
        if self._pictures and self._layout is not Layout.TEXT:
            columns = IMAGE_COLUMNS if event.final else PREVIEW_COLUMNS
            self.console.print(Padding(thumbnail(event.data, columns), (0, 0, 0, LABEL_WIDTH)))

    def _break_text(self) -> None:
        if self._in_text:
            self.console.print()
            self._in_text = False

    def _prefix(self, name: str, at_s: float | None) -> str:
        if self._layout is Layout.CHAT:
            return f"[dim]{name} [/]"
        time = "" if at_s is None else f"{at_s:.2f} s"
        return f"[dim]{time:>7}[/]  [bold]{name:<9}[/]"


def timings_table(answer: Answer) -> Table:
    """Measured by this client and reported by the server, in milliseconds after the commit."""
    table = Table(title="Times after the commit", title_justify="left")
    table.add_column("what")
    table.add_column("seen here", justify="right")
    table.add_column("by the server", justify="right")
    done = answer.done
    for name, words in (
        ("first_token", "first token"),
        ("first_audio", "first audio"),
        ("first_preview", "first preview"),
        ("image", "image done"),
        ("total", "whole turn"),
    ):
        field = f"{name}_ms"
        known = done is not None and (name == "total" or done.timings.HasField(field))  # type: ignore[arg-type]
        theirs = f"{getattr(done.timings, field):,.0f} ms" if done is not None and known else ""
        ours = f"{1000 * answer.marks[name]:,.0f} ms" if name in answer.marks else ""
        table.add_row(words, ours, theirs)
    return table


def work_table(answer: Answer) -> Table:
    """How the turn's jobs shared the device."""
    table = Table(title="On the device", title_justify="left")
    for column in ("job", "waited", "computed", "slices", "times preempted"):
        table.add_column(column, justify="left" if column == "job" else "right")
    if answer.done is None:
        return table
    timings = answer.done.timings
    for name, job in sorted(timings.jobs.items()):
        waited, computed = f"{job.queue_ms:,.0f} ms", f"{job.device_ms:,.0f} ms"
        table.add_row(name, waited, computed, str(job.slices), str(job.preemptions))
    totals = f"{timings.queue_ms:,.0f} ms", f"{timings.device_ms:,.0f} ms", "", str(timings.preemptions)
    table.add_section()
    table.add_row("turn", *totals)
    return table


def reuse(answer: Answer) -> str:
    """What the partial prompt saved, in words."""
    usage = answer.done.usage if answer.done is not None else Usage()
    reused = f"{usage.reused_tokens} of {usage.prompt_tokens} prompt tokens were computed before the commit"
    return f"{reused}, {usage.rolled_back_tokens} were rolled back by revisions."
