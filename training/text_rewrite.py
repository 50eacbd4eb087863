"""Saying the last answer again with one thing changed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from training.text_conversation import Conversation, Turn, fill, joined, spoken
from training.text_draw import COLOURS
from training.text_facts import any_words, anything, draw_facts, made_up
from training.text_math import NAMES
from training.text_talk import tell, topic
from training.text_templates import table, words

ITEMS = words("lamp clock guitar bicycle camera boat carpet mirror ladder")
ORDINALS = ("first", "second", "third", "fourth")
_WORD = re.compile(r"[A-Za-z]+|\d+")
# Words too small to be worth a change.
_SMALL = frozenset(words("a an the is are was to of in on at and it its by for with you i s"))


@dataclass(frozen=True, slots=True)
class Said:
    """An answer to `asked`, and pairs of a word of it and one that could take its place."""

    asked: str
    answer: str
    pairs: list[tuple[str, str]]


Maker = Callable[[random.Random], Said]


def swapped(text: str, old: str, new: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """`text` with every `old` made `new`, as a word if it is one there, and where the new ones stand.

    Where it is no word, it is the beginning of one (`lamp` in `lamps`). The first capital stays. What stands
    behind a change counts to it: there copying goes on.
    """
    start_of = rf"(?<![\w']){re.escape(old)}"
    found = list(re.finditer(rf"{start_of}\b", text, re.IGNORECASE))
    found = found or list(re.finditer(start_of, text, re.IGNORECASE))
    parts, keys, end, length = [], [], 0, 0
    for each in found:
        parts += [text[end : each.start()], new]
        start = length + each.start() - end
        end, length = each.end(), start + len(new)
        keys.append((start, length + 1))
    changed = "".join((*parts, text[end:]))
    return changed[:1].upper() + changed[1:], tuple(keys)


def _dictated(rng: random.Random, shortest: int = 1) -> Said:
    """Sentences repeated."""
    lists = table("talk")["lists"]
    templates = rng.sample(table("talk")["sentences"], rng.randint(shortest, 4))
    said, pairs = [], []
    for template in templates:
        a, b, other = rng.sample(NAMES, 3)
        city, new_city = rng.sample(words(lists["cities"]), 2)
        day, new_day = rng.sample(words(lists["days"]), 2)
        item, new_item = rng.sample(ITEMS, 2)
        if rng.random() < 0.15:
            a, other = made_up(rng).capitalize(), made_up(rng).capitalize()
        said.append(template.format(A=a, B=b, t=item, c=city, d=day, n=rng.randint(2, 9)))
        pairs += [(a, other), (city, new_city), (day, new_day), (item, new_item)]
    whole = " ".join(said)
    asked = fill(rng, "[repeat after me:|write this down:|say:|please write:] {x}", x=whole)
    return Said(asked, whole, [pair for pair in pairs if swapped(whole, *pair)[1]])


def _listed(rng: random.Random) -> Said:
    """A short list."""
    lists = table("talk")["lists"]
    name, count = rng.choice(list(lists)), rng.randint(2, 4)
    drawn = rng.sample(words(lists[name]), count + 1)
    number = {2: "two", 3: "three", 4: "four"}[count]
    asked = fill(rng, "[name|give me|list|tell me] {n} {k}[, please|].", n=number, k=name)
    return Said(asked, fill(rng, "{x}.", x=joined(drawn[:-1])), [(word, drawn[-1]) for word in drawn[:-1]])


def _told(rng: random.Random) -> Said:
    """A thing described, its colour and another."""
    turn = tell(rng, held_out=False, draw=False).turns[0]
    colour = next(word for word in COLOURS if word in turn.assistant.lower().split())
    return Said(turn.user, turn.assistant, [(colour, other) for other in COLOURS if other != colour])


def _fact(rng: random.Random) -> Said:
    """Statements of facts repeated."""
    whole = " ".join(fact.told for fact in draw_facts(rng, False))
    return _any_pairs(rng, fill(rng, rng.choice(table("talk")["say"]), x=whole), whole)


def _sense_less(rng: random.Random) -> Said:
    """Words that say nothing."""
    said = any_words(rng, rng.randint(3, 16))
    whole = f"{said[:1].upper()}{said[1:]}."
    return _any_pairs(rng, fill(rng, rng.choice(table("talk")["say"]), x=whole), whole)


def _short(rng: random.Random) -> Said:
    """A few names or words: the drill under every change."""
    said = rng.choice((any_words(rng, rng.randint(1, 4)), " ".join(rng.sample(NAMES, rng.randint(1, 4)))))
    whole = f"{said[:1].upper()}{said[1:]}."
    return _any_pairs(rng, fill(rng, rng.choice(table("talk")["say"]), x=whole), whole)


def _topic(rng: random.Random) -> Said:
    turn = topic(rng, held_out=False).turns[0]
    return _any_pairs(rng, turn.user, turn.assistant)


def _any_pairs(rng: random.Random, asked: str, answer: str) -> Said:
    """Every word of `answer` that stands in it once, and anything of its kind instead."""
    found = _WORD.findall(answer)
    once = [word for word in found if found.count(word) == 1 and word.lower() not in _SMALL]
    return Said(asked, answer, [(old, _of_kind(rng, old)) for old in once or found])


def _of_kind(rng: random.Random, old: str) -> str:
    if old.isdigit():
        return str(rng.randint(2, 999 if len(old) > 2 else 99))
    if old[0].isupper():
        return rng.choice(NAMES) if rng.random() < 0.7 else made_up(rng).capitalize()
    return made_up(rng) if rng.random() < 0.2 else anything(rng)


def _wish(rng: random.Random, maker: Maker, **slots: object) -> tuple[str, str]:
    """A wish's template, and the wish, at times with a few words around it."""
    changes = table("talk")["changes"]
    special = "place" if maker is _listed else "colour" if maker is _told else "swap"
    template = rng.choice(changes[special if rng.random() < 0.4 else "swap"])
    parts = [template]
    if rng.random() < 0.25:
        parts.insert(0, rng.choice(changes["before"]))
    if rng.random() < 0.25:
        parts.append(rng.choice(changes["after"]))
    return template, fill(rng, " ".join(parts), **slots)


def _changed(
    rng: random.Random, said: str, pairs: list[tuple[str, str]], maker: Maker
) -> tuple[str, Turn, list[tuple[str, str]]]:
    """A wish's template, the wish with what is then said, and the pairs that are left."""
    if rng.random() < 0.05:
        wish = rng.choice(table("talk")["changes"]["same"])
        return wish, Turn(spoken(rng, fill(rng, wish)), said), pairs
    old, new = rng.choice(pairs)
    # Lists are one word a thing: the place of a word is the place of its thing.
    places = _WORD.findall(said.lower().replace(" and ", " "))
    place = places.index(old.lower()) if maker is _listed else 0
    wish, asked = _wish(rng, maker, old=old, new=new, nth=ORDINALS[place])
    left = [pair for pair in pairs if pair[0] != old and pair[1] != new]
    return wish, Turn(spoken(rng, asked), *swapped(said, old, new)), left or [(new, old)]


_MAKERS: tuple[tuple[Maker, int], ...] = (
    (_listed, 3), (_dictated, 12), (_told, 2), (_fact, 4), (_sense_less, 3), (_short, 8), (_topic, 1),
)  # fmt: skip


def rewrite(rng: random.Random, held_out: bool) -> Conversation:
    """An answer, then the same answer with one thing changed; in training at times changed again."""
    if held_out:
        first = _dictated(rng, shortest=2)
        old, new = rng.choice(first.pairs)
        wish = rng.choice(table("talk")["changes"]["swap_held_out"])
        changed, _ = swapped(first.answer, old, new)
        request = Turn(fill(rng, wish, old=old, new=new), changed)
        return Conversation("rewrite", wish, (Turn(first.asked, first.answer), request), expected=changed)
    makers, weights = zip(*_MAKERS, strict=True)
    maker = rng.choices(makers, weights)[0]
    first = maker(rng)
    turns: tuple[Turn, ...] = (Turn(first.asked, first.answer, ()),)
    wish, said, pairs = "", first.answer, first.pairs
    # A row of training holds about 250 words: a long answer is changed once.
    often = (3, 4, 5) if maker is _short else (1,) if len(said.split()) > 32 else (1, 2, 2)
    for _ in range(rng.choice(often)):
        wish, turn, pairs = _changed(rng, said, pairs, maker)
        said = turn.assistant
        turns += (turn,)
    return Conversation("rewrite", wish, turns, expected=said)
