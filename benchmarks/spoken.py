"""From the end of a spoken question to the answer: `python -m benchmarks.spoken [--quick] [--json FILE]`.

A real server with the embedded models, over gRPC, in real time. Each question is spoken by the embedded voice
and sent at that pace, in pieces of 100 ms, once in each mode of reading along, in turn; the client commits
with the last piece, and the answer is spoken. Then the same with a microphone that stays open, where silence
ends the question. Times are seen by the client, from that commit on, or from the piece that made the silence
certain: the question as text, the answer's first token, its first sound, with which it is interrupted. A
scope of its own keeps each run cold. Words are compared without case and punctuation; a number written in
digits counts as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import re
import tempfile
from pathlib import Path
from statistics import mean

from upbeat.v1.types_pb2 import ServiceOptions

from benchmarks.stats import machine, percentile
from clients.answer import Answer
from clients.ask import PIECE_S, paced
from clients.client import PartialPrompts, Upbeat
from clients.events import Audio, Transcript
from clients.launch import running_server
from clients.media import read_wav, write_wav
from clients.talk import Talk
from pipelines.speech.hearing import FRAME_MS, WINDOW

MODES: tuple[PartialPrompts, ...] = ("off", "prefill", "answer_ahead")
SILENCE_S = 2.0
MARKS = ("ended", "understood", "first_token", "first_audio")
QUESTIONS = (
    "Good morning, how are you?",
    "What can you do for me?",
    "Who are you?",
    "Can you tell me about the sea?",
    "Please turn on the lights in the kitchen.",
    "What is seven plus five?",
    "Tom has eight apples and gives three of them away. How many apples are left?",
    "Could you tell me about a red boat on the water?",
    "I would like a large coffee with milk, please.",
    "What is the weather in Paris?",
    "Set an alarm for seven in the morning.",
    "Anna has two dogs and four cats. How many animals does she have?",
)
ARMS = tuple(itertools.product(("commit", "silence"), MODES))
Times = dict[str, list[float]]


async def run(questions: tuple[str, ...]) -> tuple[dict[str, Times], int, int]:
    """By ending and mode, for each question: milliseconds by mark, and tokens made ahead for nothing; words
    wrong, and words asked."""
    found: dict[str, Times] = {f"{ending}, {mode}": {} for ending, mode in ARMS}
    scopes, wrong, asked = itertools.count(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "question.wav"
        async with (
            running_server(("--listen", "127.0.0.1:0"), path.with_name("log")) as address,
            Upbeat(address) as upbeat,
        ):
            for number, question in enumerate((QUESTIONS[0], *questions)):
                await _say(upbeat, question, path)
                for ending, mode in ARMS if number else ARMS[-1:]:
                    service = ServiceOptions(cache_scope=f"spoken-{next(scopes)}")
                    answer = await _asked(upbeat, path, mode, service, ending == "silence")
                    if not number:  # the first warms the server up
                        continue
                    times = found[f"{ending}, {mode}"]
                    for mark in MARKS:
                        times.setdefault(mark, []).append(1000 * answer.marks[mark])
                    wasted = answer.done.usage.wasted_tokens if answer.done else 0
                    times.setdefault("wasted_tokens", []).append(wasted)
                    wrong += errors(words(question), words(answer.heard))
                    asked += len(words(question))
    return found, wrong, asked


async def _asked(
    upbeat: Upbeat, path: Path, mode: PartialPrompts, service: ServiceOptions, silence: bool
) -> Answer:
    """The marks count from the commit, or from the piece that made the silence certain; `ended` is when that
    was, after the last sound."""
    pcm16, rate = read_wav(path)
    talking = upbeat.converse(
        modalities=("text", "speech"),
        service=service,
        partial_prompts=mode,
        audio_sample_rate=rate,
        commit_on_silence=silence,
    )
    loop, answer = asyncio.get_running_loop(), Answer()
    async with talking as talk:
        began_s = loop.time()
        ended_s = spoken_s = began_s + len(pcm16) / 2 / rate
        speaking = asyncio.create_task(_speak(talk, pcm16, rate, silence))
        async for event in talk:
            if isinstance(event, Transcript) and event.is_final:
                if silence:
                    certain_s = (event.end_ms + FRAME_MS * (WINDOW - 1)) / 1000
                    ended_s = began_s + PIECE_S * math.ceil(certain_s / PIECE_S)
                answer.marks |= {"ended": ended_s - spoken_s, "understood": loop.time() - ended_s}
            before = len(answer.pcm16)
            answer.add(event, loop.time() - ended_s)
            if answer.pcm16 and not before:
                await talk.interrupt(0)
        speaking.cancel()
    return answer


async def _speak(talk: Talk, pcm16: bytes, rate: int, silence: bool) -> None:
    if silence:
        pcm16 += bytes(2 * round(SILENCE_S * rate))
    async for piece in paced(pcm16, rate):
        await talk.audio(piece)
    if not silence:
        await talk.commit()


async def _say(upbeat: Upbeat, text: str, path: Path) -> None:
    pieces = [event async for event in upbeat.synthesize(text) if isinstance(event, Audio)]
    write_wav(path, [piece.pcm16 for piece in pieces], pieces[0].sample_rate)


def words(text: str) -> list[str]:
    """Lower case, without punctuation."""
    return re.sub(r"[^a-z' ]", "", text.lower().replace("-", " ")).split()


def errors(right: list[str], heard: list[str]) -> int:
    """Least insertions, deletions and substitutions (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, wanted in enumerate(right, 1):
        before, row = row, [i]
        for j, got in enumerate(heard, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (wanted != got)))
    return row[-1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two questions")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    questions = QUESTIONS[1:3] if options.quick else QUESTIONS
    found, wrong, asked = asyncio.run(run(questions))
    for arm, times in found.items():
        told = (
            f"{mark.replace('_', ' ')} {percentile(times[mark], 0.5):.0f} ms p50, "
            f"{percentile(times[mark], 0.95):.0f} p95"
            for mark in MARKS
        )
        print(f"{arm:>21}: {'; '.join(told)}; {mean(times['wasted_tokens']):.0f} tokens for nothing")
    print(f"{wrong} of {asked} words heard wrong")
    if options.json:
        body = {"name": "spoken", "hardware": machine(), "questions": len(questions)}
        heard = {"words_wrong": wrong, "words_asked": asked, "times_ms": found}
        options.json.write_text(json.dumps(body | heard, indent=1) + "\n")


if __name__ == "__main__":
    main()
