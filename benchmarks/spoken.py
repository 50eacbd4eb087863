"""From the end of a spoken question to the answer: `python -m benchmarks.spoken [--quick] [--json FILE]`.

A real server with the embedded models, over gRPC, in real time. Each question is spoken by the embedded voice
and sent at that pace, in pieces of 100 ms, once in each mode of reading along, in turn; the client commits
with the last piece, and the answer is spoken. Times are seen by the client, from that commit on: what is
still to be recognised, the answer's first token, its first sound. A scope of its own keeps each run cold.
Words are compared without case and punctuation; a number written in digits counts as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import re
import tempfile
from pathlib import Path

from rich.console import Console
from upbeat.v1.types_pb2 import ServiceOptions

from benchmarks.stats import machine, percentile
from clients.ask import ask
from clients.client import PartialPrompts, Upbeat
from clients.events import Audio
from clients.launch import running_server
from clients.media import write_wav

MODES: tuple[PartialPrompts, ...] = ("off", "prefill", "answer_ahead")
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
Times = dict[str, list[float]]


async def run(questions: tuple[str, ...]) -> tuple[dict[str, Times], int, int]:
    """Milliseconds by mode and mark; words wrong, and words asked."""
    found: dict[str, Times] = {mode: {"first_token": [], "first_audio": []} for mode in MODES}
    scopes, wrong, asked = itertools.count(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            running_server(("--listen", "127.0.0.1:0"), folder / "log") as address,
            Upbeat(address) as upbeat,
        ):
            for number, question in enumerate((QUESTIONS[0], *questions)):
                path = folder / "question.wav"
                await _say(upbeat, question, path)
                for mode in MODES:
                    service = ServiceOptions(cache_scope=f"spoken-{next(scopes)}")
                    console = Console(file=io.StringIO())
                    answer = await ask(upbeat, console, path, folder / "answer.wav", mode, service)
                    if not number:  # the first warms the server up
                        continue
                    for mark, times in found[mode].items():
                        times.append(1000 * answer.marks[mark])
                    wrong += errors(words(question), words(answer.heard))
                    asked += len(words(question))
    return found, wrong, asked


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
    parser.add_argument("--quick", action="store_true", help="three questions")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    questions = QUESTIONS[:3] if options.quick else QUESTIONS
    found, wrong, asked = asyncio.run(run(questions))
    for mode, times in found.items():
        told = (
            f"{mark.replace('_', ' ')} {percentile(each, 0.5):.0f} ms p50, {percentile(each, 0.95):.0f} p95"
            for mark, each in times.items()
        )
        print(f"{mode:>13}: {'; '.join(told)}")
    print(f"{wrong} of {asked} words heard wrong")
    if options.json:
        body = {"name": "spoken", "hardware": machine(), "questions": len(questions)}
        heard = {"words_wrong": wrong, "words_asked": asked, "times_ms": found}
        options.json.write_text(json.dumps(body | heard, indent=1) + "\n")


if __name__ == "__main__":
    main()
