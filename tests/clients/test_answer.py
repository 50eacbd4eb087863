from __future__ import annotations

import io

from rich.console import Console
from upbeat.v1 import types_pb2 as types

from clients.answer import Answer
from clients.events import Audio, Done, Event, Image, Token
from clients.screen import Screen, reuse, timings_table, work_table

HALF_SECOND = b"\0\0" * 8000
TIMINGS = types.Timings(
    first_token_ms=90,
    total_ms=1234,
    preemptions=3,
    jobs={"image": types.JobTimings(queue_ms=5, device_ms=1000, preemptions=3, slices=20)},
)
EVENTS: list[tuple[float, Event]] = [
    (0.1, Token(text="A red", tokens=2, revision=0)),
    (0.2, Audio(pcm16=HALF_SECOND, sample_rate=16_000, start_ms=0)),
    (0.3, Token(text=" boat.", tokens=2, revision=0)),
    (0.4, Image(final=False, step=4, steps=8, mime="image/png", data=b"", width=64, height=64)),
    (0.5, Audio(pcm16=HALF_SECOND, sample_rate=16_000, start_ms=500)),
    (0.9, Image(final=True, step=8, steps=8, mime="image/png", data=b"123", width=64, height=64)),
    (1.3, Done(finish_reason="stop", usage=types.Usage(reused_tokens=7, prompt_tokens=9), timings=TIMINGS)),
]


def test_an_answer_is_gathered_with_the_clients_own_times() -> None:
    answer = Answer()
    for now_s, event in EVENTS:
        answer.add(event, now_s)
    assert (answer.text, answer.tokens, answer.previews, answer.audio_ms) == ("A red boat.", 4, 1, 1000)
    assert answer.image is EVENTS[5][1]
    assert round(answer.most_ahead_ms) == 700
    assert answer.marks == {
        "first_token": 0.1,
        "first_audio": 0.2,
        "first_preview": 0.4,
        "image": 0.9,
        "total": 1.3,
    }
    assert answer.missing(("text", "speech", "image")) == []
    assert Answer().missing(("text", "image")) == ["text", "image"]


def test_what_comes_in_between_gets_a_line_of_its_own() -> None:
    output = io.StringIO()
    console = Console(file=output, width=100)
    screen, answer = Screen(console), Answer()
    for now_s, event in EVENTS:
        answer.add(event, now_s)
        screen.show(event, answer, now_s)
    screen.end(answer, 1.3)
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    assert lines == [
        " 0.10 s  text     A red",
        " 0.20 s  speech   begins, 500 ms ahead of playback",
        " 0.30 s  text     boat.",
        " 0.40 s  image    preview, step 4 of 8",
        " 0.90 s  image    done, 64 x 64 pixels, 3 bytes of PNG",
        " 1.30 s  speech   ends, 1.0 s of sound, never more than 700 ms ahead of playback",
    ]


def test_the_tables_hold_both_clocks_and_the_preemptions() -> None:
    output = io.StringIO()
    console = Console(file=output, width=100)
    answer = Answer()
    for now_s, event in EVENTS:
        answer.add(event, now_s)
    console.print(timings_table(answer))
    console.print(work_table(answer))
    console.print(reuse(answer))
    text = output.getvalue()
    for expected in ("100 ms", "90 ms", "1,234 ms", "7 of 9 prompt tokens"):
        assert expected in text
    image = next(line for line in text.splitlines() if line.startswith("│ image ") and "1,000 ms" in line)
    assert image.split("│")[-2].strip() == "3"
