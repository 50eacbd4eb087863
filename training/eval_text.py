"""Measures the text model on templates that training never saw: `python -m training.eval_text [--quick]`.

Every figure comes with its 95 % bootstrap interval over prompts. Greedy decoding.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from training import eval_text_draft, eval_text_partial
from training.data import ROOT, data_dir, records
from training.data_split import split_of
from training.text_answers import Answer, Answerer
from training.text_conversation import Conversation, Turn
from training.text_copying import copied
from training.text_draw import drawn
from training.text_figures import Figure, interval, ratio
from training.text_generator import HELD_OUT, HELD_OUT_SEED, held_out, stream
from training.text_math import parsed_answer
from training.text_ngram import NGram
from training.text_orders import ASK_HELD_OUT, Dialogue, dialogues, parsed_order
from training.text_tokenizer import VOCABULARY

FOLDER = ROOT / "models" / "upbeat-text"
DRAFT_FOLDER = ROOT / "models" / "upbeat-text-draft"
QUIET = ("no-draw", "topic", "math", "facts", "chat")
LOUD = ("draw", "tell-draw")
Judge = Callable[[Conversation, Answer], bool]


def mixed(count: int) -> list[Conversation]:
    """`count` unseen prompts, as even over the skills as they go."""
    skills = sorted(HELD_OUT)
    each = {skill: held_out(skill, math.ceil(count / len(skills)), seed=31) for skill in skills}
    return [each[skills[index % len(skills)]][index // len(skills)] for index in range(count)]


def right_number(asked: Conversation, answer: Answer) -> bool:
    """Whether the parsed number is the expected one."""
    return answer.ended and str(parsed_answer(answer.text)) == asked.expected


def right_word(asked: Conversation, answer: Answer) -> bool:
    """Whether the answer holds the expected word and no other fact's sentence."""
    return answer.ended and str(asked.expected).lower() in answer.text.lower() and len(answer.text) < 90


def right_order(asked: Conversation, answer: Answer) -> bool:
    """Whether the last order is said back, item for item."""
    return answer.ended and str(asked.expected).lower() in answer.text.lower()


def right_drawing(asked: Conversation, answer: Answer) -> bool:
    """Whether a picture is drawn when and only when asked."""
    return answer.ended and bool(drawn(answer.text)) == bool(asked.expected and asked.skill in LOUD)


def right_caption(asked: Conversation, answer: Answer) -> bool:
    """Whether the one caption is the wish, word for word, article aside."""
    captions = drawn(answer.text)
    return len(captions) == 1 and captions[0].split()[1:] == str(asked.expected).split()[1:]


def ended(asked: Conversation, answer: Answer) -> bool:
    """Whether the answer ended by itself."""
    return answer.ended


def svamp(count: int) -> list[Conversation]:
    """Questions of SVAMP's test split; empty where the data folder is absent."""
    folder = data_dir()
    if folder is None:
        return []
    found = []
    for record in records(folder / "partial" / "questions.jsonl"):
        if record["src"] == "svamp" and split_of(record["id"]) == "test":
            turn = Turn(" ".join(record["sents"]), "")
            found.append(Conversation("svamp", "svamp", (turn,), expected=f"{float(record['answer']):g}"))
    return found[:count]


def unseen_orders(count: int) -> list[Dialogue]:
    """Dialogues of Taskmaster-4's dev part whose opening training never saw; none without the data."""
    folder = data_dir()
    if folder is None:
        return []
    known = {record["turns"][0]["t"].strip().lower() for record in records(folder / "lm" / "tm4_train.jsonl")}
    found = dialogues(folder / "lm" / "tm4_dev.jsonl")
    return [each for each in found if each.turns[0].user.lower() not in known][:count]


def order_figures(answerer: Answerer, count: int) -> list[Figure]:
    """F1 of the drinks of the order said back, by name and with all their options."""
    asked = unseen_orders(count)
    if not asked:
        return []
    answers = answerer.answers([each.asked(ASK_HELD_OUT) for each in asked])
    said = [parsed_order(answer.text) for answer in answers]
    names = [
        _overlap([i.name for i in got], [i.name for i in each.items])
        for got, each in zip(said, asked, strict=True)
    ]
    full = [_overlap(got, each.items) for got, each in zip(said, asked, strict=True)]
    labels = ("orders of tm4_dev: F1 of drinks", "orders of tm4_dev: F1 of drinks with all options")
    return [
        ratio(label, [2.0 * both for both, _ in pairs], [float(either) for _, either in pairs])
        for label, pairs in zip(labels, (names, full), strict=True)
    ]


def _overlap(said: Sequence[Hashable], wanted: Sequence[Hashable]) -> tuple[int, int]:
    """Items in both, and the number of items on both sides together."""
    both = Counter(said) & Counter(wanted)
    return both.total(), len(said) + len(wanted)


def copy_figures(answerer: Answerer, count: int, seed: int) -> list[Figure]:
    """The last answer with one thing changed: is it right, and how much of it does copying draft?"""
    asked = held_out("rewrite", count, seed)
    answers = answerer.answers(asked)
    pairs = [
        copied(answerer.encoder.prompt(each), [*answerer.encoder.text(answer.text), answerer.encoder.end])
        for each, answer in zip(asked, answers, strict=True)
    ]
    right = [float(answer.text.strip() == each.expected) for each, answer in zip(asked, answers, strict=True)]
    checked, accepted = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    return [
        interval("one thing changed, word for word", right),
        ratio("one thing changed: copied tokens accepted", accepted, checked),
    ]


def perplexities(answerer: Answerer, count: int) -> tuple[Figure, Figure]:
    """Per token said in held-out conversations: the model's, and a 5-gram's that saw 20,000 training ones."""
    skills = ("math", "draw", "tell-draw", "topic", "coffee")
    pieces = [
        answerer.encoder.encode(made)
        for skill in skills
        for made in held_out(skill, count // len(skills), 91)
    ]
    seen = (answerer.encoder.encode(made).ids for made in islice(stream(data_dir(), 77), 20_000))
    ngram = NGram(seen, order=5, vocabulary=VOCABULARY)
    told = [value for piece in pieces for value in ngram.nats(piece.ids, piece.said)]
    figures = [interval("", answerer.nats(pieces)), interval("", told)]
    names = ("perplexity of the model", "perplexity of a 5-gram")
    ours, theirs = (
        Figure(name, math.exp(f.value), math.exp(f.low), math.exp(f.high), f.count)
        for name, f in zip(names, figures, strict=True)
    )
    return ours, theirs


def measure(folder: Path, draft: Path, quick: bool, draw: int = 0) -> list[Figure]:
    """All figures of a model folder and of its draft model's, on one draw from the held-out templates."""
    answerer, scale, seed = Answerer(folder), 4 if quick else 1, HELD_OUT_SEED + draw

    def share(name: str, asked: list[Conversation], judge: Judge) -> Figure:
        said = answerer.answers(asked)
        return interval(name, [float(judge(each, answer)) for each, answer in zip(asked, said, strict=True)])

    loud = [made for skill in LOUD for made in held_out(skill, 60 // scale, seed)]
    quiet = [made for skill in QUIET for made in held_out(skill, 24 // scale, seed)]
    figures = [
        share("ends by itself, 20 unseen prompts", mixed(20), ended),
        share("ends by itself, 100 unseen prompts", mixed(100), ended),
        *eval_text_partial.measure(answerer, 500 // scale, draw),
        share("facts in the prompt, unseen templates", held_out("facts", 200 // scale, seed), right_word),
        share("draws when and only when asked", loud + quiet, right_drawing),
        share("caption is the wish", loud, right_caption),
        share("coffee: last order said back", held_out("coffee", 80 // scale, seed), right_order),
    ]
    figures += order_figures(answerer, 200 // scale)
    figures += copy_figures(answerer, 120 // scale, seed)
    if questions := svamp(80 // scale):
        figures.append(share("SVAMP (no target)", questions, right_number))
    figures += perplexities(answerer, 200 // scale)
    return figures + eval_text_draft.measure(folder, draft, mixed(60 // scale))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the prompts")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--draft", type=Path, default=DRAFT_FOLDER)
    parser.add_argument("--draw", type=int, default=0, help="another draw of the unseen prompts")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    figures = measure(chosen.folder, chosen.draft, chosen.quick, chosen.draw)
    table = Table("measure", "value", "95 % interval", "prompts or tokens")
    for figure in figures:
        table.add_row(
            figure.name, f"{figure.value:.3g}", f"{figure.low:.3g} to {figure.high:.3g}", str(figure.count)
        )
    Console().print(table)
    Console().print(f"{time.monotonic() - started:.0f} s")
    if chosen.json is not None:
        chosen.json.write_text(
            json.dumps([asdict(figure) for figure in figures], indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
