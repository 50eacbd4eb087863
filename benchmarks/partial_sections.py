"""The sections of `benchmarks.partial_prompt` that answer one prompt after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.partial_arms import Arms, Row, Typed, section
from benchmarks.partial_cases import (
    LARGE,
    SMALL,
    Case,
    bin_of,
    dialogues,
    long_prompt,
    problems,
    questions,
    random_model,
)
from clients.edits import Edit, EditScript, spoken, typed
from pipelines.contract import Pipeline
from pipelines.messages import ImageRequest, ModelInfo, Sampling
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings

Pipelines = dict[str, Pipeline]
Sections = Iterator[tuple[str, Row]]
EVERY = ("cold", "warm", "prefill", "answer ahead", "think ahead")
EXACT = ("cold", "warm", "prefill", "answer ahead")
SPEEDS = (120, 240, 600)
RATES = (0.0, 0.05, 0.2)


def typing(speed: float, rate: float) -> Typed:
    return lambda text: typed(text, speed, rate, seed=3)


def speaking(rate: float) -> Typed:
    return lambda text: spoken(text, 160.0, rate, seed=3)


def text_sections(pipelines: Pipelines, prompts: int) -> Sections:
    """Questions, word problems and dialogues at the embedded model, typed at 240 characters a minute."""
    arms = Arms(pipelines)
    asked = questions(prompts) or problems(prompts)
    arms.run(asked[0], typed(asked[0].text, 600), EVERY)
    cases = {"questions": asked, "word problems": problems(prompts), "dialogue turns": dialogues(prompts)}
    for kind, these in cases.items():
        name = f"{kind}, 240 a minute"
        yield name, section(name, arms, these, typing(240, 0), EVERY)
    name = "word problems, a misspelt word put right with the commit"
    yield name, section(name, arms, problems(prompts), put_right, ("cold", "prefill", "answer ahead"))


def grid_sections(pipelines: Pipelines, prompts: int) -> Sections:
    """Word problems at every speed and rate of revision, typed and spoken."""
    arms, cases = Arms(pipelines), problems(prompts)
    arms.run(cases[0], typed(cases[0].text, 600), EXACT)
    ways = {
        f"{speed} a minute, {rate:.0%} of the words revised": typing(speed, rate)
        for speed in SPEEDS
        for rate in RATES
    }
    ways |= {f"spoken, {rate:.0%} of the words revised": speaking(rate) for rate in RATES}
    for way, how in ways.items():
        yield way, section(f"word problems, {way}", arms, cases, how, EXACT)


def length_sections(pipelines: Pipelines, prompts: int) -> Sections:
    """Questions of the shared data by their number of sentences."""
    arms = Arms(pipelines)
    groups: dict[str, list[Case]] = {}
    for case in questions(prompts):
        groups.setdefault(bin_of(case.sentences), []).append(case)
    which = ("cold", "warm", "answer ahead", "think ahead")
    for name, group in sorted(groups.items(), key=lambda group: group[1][0].sentences):
        told = f"questions of {name} sentences"
        yield told, section(told, arms, group, typing(240, 0), which)


def long_sections(_: Pipelines, prompts: int) -> Sections:
    """Long prompts at two random models: as many as asked for up to 50 sentences, half above, a quarter at
    200, and half of each at the larger one."""
    for shape, share in ((SMALL, 1), (LARGE, 2)):
        with tempfile.TemporaryDirectory() as folder:
            made = random_model(Path(folder) / "random", shape)
            pipeline = TextPipeline.load(made, name="random", settings=TextSettings(kv_tokens=32_768))
        model = f"{round(pipeline.info.parameters / 1e6)} million weights"
        yield from _lengths(pipeline, model, [max(1, prompts // share // less) for less in (1, 1, 1, 2, 4)])


def _lengths(pipeline: TextPipeline, model: str, prompts: list[int]) -> Sections:
    arms = Arms({"random": pipeline}, sampling=Sampling(max_tokens=16))
    which = ("cold", "warm", "answer ahead")
    arms.run(long_prompt(5, 99), typed(long_prompt(5, 99).text, 600), which)
    for sentences, count in zip((5, 20, 50, 100, 200), prompts, strict=True):
        cases = [long_prompt(sentences, seed) for seed in range(count)]
        name = f"{sentences} sentences, {model}"
        yield name, section(name, arms, cases, typing(600, 0), which)


def media_sections(pipelines: Pipelines, prompts: int) -> Sections:
    """First audio and image: the voice speaks the answer, the image is the user's words."""
    infos: dict[str, ModelInfo] = {}
    for pipeline in pipelines.values():
        infos.setdefault(pipeline.info.modality, pipeline.info)
    which = ("cold", "warm", "prefill", "answer ahead")
    voice = Arms(pipelines, text=infos["text"], speech=infos["speech"])
    cases = problems(prompts)
    voice.run(cases[0], typed(cases[0].text, 600), which)
    yield "spoken answers", section("spoken answers", voice, cases, typing(240, 0), which)
    scenes = [Case(f"Draw {what}.", 1) for what in ("a red star", "two blue rings", "a green boat on water")]
    drawing = ImageRequest("", steps=8, preview_every=4)
    image = Arms(pipelines, text=infos["text"], image=infos["image"], drawing=drawing)
    yield "images", section("images", image, scenes[: max(1, prompts // 4)], slowly_ended, which)


SECTIONS: dict[str, Callable[[Pipelines, int], Sections]] = {
    "text": text_sections,
    "grid": grid_sections,
    "length": length_sections,
    "long": long_sections,
    "media": media_sections,
}


def slowly_ended(text: str) -> EditScript:
    """Typed, and committed after a second: an image is begun ahead of the whole prompt only."""
    script = typed(text, 240)
    return EditScript((*script.edits, Edit(script.end_ms + 1000.0, len(text), "")))


def put_right(text: str) -> EditScript:
    """Typed with a word in the middle misspelt, which is put right a second after the end: an edit that keeps
    the meaning."""
    words = text.split(" ")
    place = max(range(len(words) // 2, len(words)), key=lambda i: words[i].isalpha() * len(words[i]))
    word = words[place]
    start = len(" ".join(words[:place])) + (place > 0)
    wrong = text[:start] + word[:-2] + word[-1] + word[-2] + text[start + len(word) :]
    script = typed(wrong, 240)
    return EditScript((*script.edits, Edit(script.end_ms + 1000.0, start, text[start:])))
