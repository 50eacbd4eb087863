"""Puts scenes into words, in many ways: bare captions, requests, and pieces of conversation around them."""

from __future__ import annotations

from typing import Final

import numpy as np

from training.image_scene import Item, Scene

_KIND_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "circle": ("circle", "circle", "disc", "ball"),
    "square": ("square",),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "ring": ("ring", "ring", "hoop"),
    "cross": ("cross", "cross", "plus sign"),
    "hexagon": ("hexagon",),
    "moon": ("moon", "crescent moon", "crescent"),
    "tree": ("tree",),
    "house": ("house", "house", "cottage"),
    "boat": ("boat", "boat", "sailboat", "ship"),
}
_SIZE_WORDS: Final = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
_PATTERN_WORDS: Final = {
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "graded": ("shaded", "fading"),
    "speckled": ("speckled", "grainy"),
}
_PATTERN_TAILS: Final = {
    "striped": "with stripes",
    "dotted": "with dots",
    "graded": "with a gradient",
    "speckled": "with speckles",
}
_COUNT_WORDS: Final = {2: ("two", "2", "a pair of"), 3: ("three", "3"), 4: ("four", "4")}
_RELATIONS: Final[dict[str, tuple[str, ...]]] = {
    "and": ("{a} and {b}", "{a} and {b}", "{a} next to {b}", "{a} beside {b}", "{a} with {b}"),
    "left": (
        "{a} to the left of {b}",
        "{a} left of {b}",
        "{a} on the left of {b}",
        "{b} to the right of {a}",
    ),
    "right": (
        "{a} to the right of {b}",
        "{a} right of {b}",
        "{a} on the right of {b}",
        "{b} to the left of {a}",
    ),
    "above": ("{a} above {b}", "{a} over {b}", "{a} on top of {b}", "{b} below {a}"),
    "below": ("{a} below {b}", "{a} under {b}", "{a} beneath {b}", "{b} above {a}"),
    "inside": ("{a} inside {b}", "{a} in {b}", "{a} within {b}", "{b} with {a} inside", "{b} containing {a}"),
}
_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "water": (
        "on the water", "on the water", "on water", "on the sea", "sailing on the sea", "on a lake",
        "in the water", "at sea", "floating on the water",
    ),
    "hill": ("on a hill", "on a green hill", "on the hill", "on top of a hill"),
}  # fmt: skip
_HOURS: Final[dict[str, tuple[str, ...]]] = {
    "day": ("", "", "", "by day", "under the sun", "on a sunny day", "in the sunshine", "under a blue sky"),
    "night": ("at night", "under the moon", "by moonlight", "under the stars", "at night under the moon"),
    "sunset": ("at sunset", "in the evening", "at dusk", "under an orange sky"),
}
_BACKGROUNDS: Final = ("on a {c} background", "on {c}", "with a {c} background", "against a {c} background")
_REQUESTS: Final = (
    "draw {x}", "draw me {x}", "please draw {x}", "can you draw {x}", "could you please draw {x} for me",
    "paint {x}", "please paint {x}", "sketch {x}", "show me {x}", "make an image of {x}", "a picture of {x}",
    "a drawing of {x}", "an image of {x}", "i want a picture of {x}", "i would like to see {x}",
    "give me {x}", "create a picture of {x}", "let me see {x}", "draw a picture of {x}", "there is {x}",
    "imagine {x}",
)  # fmt: skip
_TALKS: Final = (
    "tell me about {x} and draw it for me", "tell me about {x}", "tell me about {x} and draw it",
    "tell me a story about {x} and draw it", "tell me a short story about {x}", "describe {x} and paint it",
    "describe {x}", "what about {x}", "what can you say about {x}", "say something about {x} and show it",
    "talk about {x}, then draw it", "explain {x} and make a picture of it", "i saw {x} today, draw it please",
    "write about {x}", "sing about {x} and draw a picture", "where is {x}", "do you like {x}", "look at {x}",
    "my friend has {x}, what does it look like", "have you ever seen {x}", "where does {x} go",
)  # fmt: skip
_BEFORE: Final = (
    "hello", "hi there", "good morning", "please", "well", "ok", "now", "thank you", "hey", "one more thing",
    "quick question", "for my daughter", "for my son", "as a child would", "before we start",
)  # fmt: skip
_AFTER: Final = (
    "please", "thank you", "keep it short", "in one sentence", "answer slowly", "and say it out loud",
    "make it nice", "as well as you can", "for my friend", "in simple words", "and be kind", "thanks a lot",
    "and make me smile", "and tell me why", "if you can",
)  # fmt: skip
_COMMON_TEXT: Final = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by
word but not what all were we when your can said use an each which she do how their if will up other
about out many then them these so some her would make like him into time has look more write go see
number no way could people my than first water been call who oil its now find long down day did get come
made may part why because always world name story friend home old new good great very often never morning
light night sea wind sky sun harbour garden mountain children sing play sleep travel quiet bright
beautiful answer question help tell think
"""
_SYLLABLE_TEXT: Final = (
    "ka lo mi ter son ing ber da ri ve un sha pro con ly est men ta ne wo gra phi do ru el op"
)
_COMMON: Final = tuple(_COMMON_TEXT.split())
_SYLLABLES: Final = tuple(_SYLLABLE_TEXT.split())


def _noise_word(rng: np.random.Generator) -> str:
    """A common word, or an invented one: users say words that no caption holds."""
    if rng.random() < 0.7:
        return _pick(rng, _COMMON)
    return "".join(_pick(rng, _SYLLABLES) for _ in range(int(rng.integers(2, 4))))


def _noise(rng: np.random.Generator) -> str:
    return " ".join(_noise_word(rng) for _ in range(int(rng.integers(1, 6))))


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _plural(noun: str) -> str:
    return noun + "es" if noun.endswith(("s", "x")) else noun + "s"


def _article(phrase: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.15:
        return "the " + phrase
    return ("an " if phrase[0] in "aeio" else "a ") + phrase


def item_phrase(item: Item, rng: np.random.Generator) -> str:
    """Names one item with its article or number: "a small blue star", "three red hearts"."""
    noun, tail = _pick(rng, _KIND_WORDS[item.kind]), ""
    words = [_pick(rng, _SIZE_WORDS[item.size])] if item.size else []
    if item.pattern and rng.random() < 0.3:
        tail = " " + _PATTERN_TAILS[item.pattern]
    elif item.pattern:
        words.append(_pick(rng, _PATTERN_WORDS[item.pattern]))
    words.append(item.colour)
    if len(words) > 1 and item.pattern and rng.random() < 0.2:
        words.reverse()
    if item.count > 1:
        return " ".join([_pick(rng, _COUNT_WORDS[item.count]), *words, _plural(noun)])
    return _article(" ".join([*words, noun]), rng) + tail


def plain_caption(scene: Scene, rng: np.random.Generator) -> str:
    """The bare caption: "a red circle above a blue star on a gray background"."""
    phrases = [item_phrase(item, rng) for item in scene.items]
    if len(phrases) == 2:
        text = _pick(rng, _RELATIONS[scene.relation]).format(a=phrases[0], b=phrases[1])
    else:
        text = phrases[0]
    if scene.setting != "plain":
        text = " ".join([text, _pick(rng, _PLACES[scene.setting]), _pick(rng, _HOURS[scene.hour])]).strip()
    if scene.background != "plain":
        text += " " + _pick(rng, _BACKGROUNDS).format(c=scene.background)
    return text


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption as a user might say it: half of them bare, the others inside a request or a conversation."""
    text, style = plain_caption(scene, rng), rng.random()
    if style < 0.5:
        if rng.random() < 0.2 and text.startswith(("a ", "an ")):
            text = text.split(" ", 1)[1]
        return text + ("." if rng.random() < 0.1 else "")
    text = _pick(rng, _REQUESTS if style < 0.75 else _TALKS).format(x=text)
    if rng.random() < 0.2:
        text = _pick(rng, _BEFORE) + ("," if rng.random() < 0.5 else "") + " " + text
    if rng.random() < 0.2:
        text = text + ("," if rng.random() < 0.4 else "") + " " + _pick(rng, _AFTER)
    if rng.random() < 0.2:
        text = f"{_noise(rng)} {text}" if rng.random() < 0.5 else f"{text} {_noise(rng)}"
    return text + _pick(rng, ("", "", ".", "!", "?"))
