"""Coffee orders: one to three items, changes of mind, questions about the menu, and the order said back."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from training.text_conversation import Conversation, Turn, article, fill, joined, spoken
from training.text_templates import table

DRINKS: list[str] = table("coffee")["drinks"]
FOOD: list[str] = table("coffee")["food"]
MILKS: list[str] = table("coffee")["milks"]
EXTRAS: list[str] = table("coffee")["extras"]
SIZES = ["small", "medium", "large"]
COUNTS = {1: "", 2: "two ", 3: "three "}


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an order."""

    name: str
    count: int = 1
    size: str = ""
    extras: tuple[str, ...] = ()

    def told(self) -> str:
        """`two large lattes with oat milk`."""
        noun = f"{self.size} {self.name}".strip()
        head = article(noun) if self.count == 1 else f"{COUNTS[self.count]}{_plural(noun)}"
        return head + (f" with {joined(list(self.extras))}" if self.extras else "")


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("ch", "sh")) else "s")


def _item(rng: random.Random) -> Item:
    if rng.random() < 0.25:
        return Item(rng.choice(FOOD), rng.choice((1, 1, 1, 2)))
    extras: tuple[str, ...] = ()
    if rng.random() < 0.45:
        extras = (rng.choice(MILKS),) if rng.random() < 0.6 else (rng.choice(EXTRAS),)
        if rng.random() < 0.2:
            extras = (rng.choice(MILKS), rng.choice(EXTRAS))
    return Item(rng.choice(DRINKS), rng.choice((1, 1, 1, 1, 2, 3)), rng.choice(["", "", *SIZES]), extras)


def _renamed(rng: random.Random, old: Item) -> Item:
    names = DRINKS if old.name in DRINKS else FOOD
    return replace(old, name=rng.choice([name for name in names if name != old.name]))


def _richer(rng: random.Random, old: Item) -> Item:
    milky = any(extra in MILKS for extra in old.extras)
    options = [extra for extra in EXTRAS + ([] if milky else MILKS) if extra not in old.extras]
    return replace(old, extras=(*old.extras, rng.choice(options)))


def _kind_of_change(rng: random.Random, items: list[Item], old: Item) -> str:
    kinds = ["add", "add", "swap", "count"]
    if len(items) > 1:
        kinds.append("remove")
    if old.name in DRINKS:
        kinds += ["size", "extra"] if len(old.extras) < 2 else ["size"]
    return rng.choice(kinds)


def _change(rng: random.Random, items: list[Item]) -> tuple[str, list[Item]]:
    """A change of mind and the order after it."""
    index = rng.randrange(len(items))
    old = items[index]
    kind = _kind_of_change(rng, items, old)
    template = rng.choice(table("coffee")["change"][kind])
    before, after = items[:index], items[index + 1 :]
    if kind == "add":
        names = [item.name for item in items]
        while (new := _item(rng)).name in names:
            continue
        return fill(rng, template, x=new.told()), [*items, new]
    if kind == "remove":
        return fill(rng, template, x=old.name), before + after
    if kind == "swap":
        new = _renamed(rng, old)
        return fill(rng, template, x=old.name, y=article(new.name)), [*before, new, *after]
    if kind == "size":
        new = replace(old, size=rng.choice([size for size in SIZES if size != old.size]))
        return fill(rng, template, x=old.name, s=new.size), [*before, new, *after]
    if kind == "extra":
        new = _richer(rng, old)
        return fill(rng, template, x=old.name, e=new.extras[-1]), [*before, new, *after]
    new = replace(old, count=rng.choice([count for count in (2, 3) if count != old.count]))
    return fill(rng, template, n=COUNTS[new.count], x=_plural(old.name)), [*before, new, *after]


def order(rng: random.Random, held_out: bool) -> Conversation:
    """An order with up to three changes; `expected` is the order as it stands after the last one."""
    items = [_item(rng)]
    while rng.random() < 0.35 and len(items) < 3:
        new = _item(rng)
        if new.name not in [item.name for item in items]:
            items.append(new)
    template = rng.choice(table("coffee")["order_held_out" if held_out else "order"])
    told = _all(items)
    turns = [
        Turn(
            spoken(rng, fill(rng, template, x=told)),
            fill(rng, rng.choice(table("coffee")["confirm"]), x=told),
        )
    ]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        if len(items) > 3:
            break
        wish, items = _change(rng, items)
        turns.append(
            Turn(spoken(rng, wish), fill(rng, rng.choice(table("coffee")["changed"]), x=_all(items)))
        )
    final = _all(items)
    if rng.random() < 0.6:
        turns.append(
            Turn(
                spoken(rng, fill(rng, rng.choice(table("coffee")["done_ask"]))),
                fill(rng, rng.choice(table("coffee")["done"]), x=final),
            )
        )
    return Conversation("coffee", template, tuple(turns), expected=final)


def _all(items: list[Item]) -> str:
    return joined([item.told() for item in items])


def menu(rng: random.Random) -> Conversation:
    """A menu in the prompt and questions about its prices, stock and size."""
    names = rng.sample(DRINKS + FOOD, rng.randint(3, 5))
    prices = {name: rng.randint(2, 9) for name in names}
    board = "Menu: " + ", ".join(f"{name} {price} dollars" for name, price in prices.items()) + "."
    asked, absent = rng.choice(names), rng.choice([name for name in DRINKS + FOOD if name not in names])
    kinds = (
        (
            "[how much is|what does] the {x}[ cost|]?".replace("[ cost|]", ""),
            "The {x} is {p} dollars.",
            asked,
        ),
        ("how much is [a|the] {x}?", "[A|The] {x} costs {p} dollars.".replace("[A|The]", "The"), asked),
        ("do you have {x}?", "[Yes|We do], the {x} is {p} dollars.", asked),
        ("do you have {x}?", "[Sorry|I am sorry], {x} is not on the menu.", absent),
        ("can I get {a}?", "[Sorry|I am sorry], we have no {x} today. [May I offer {b}?|]", absent),
        ("what is on the menu?", "We have {all}.", asked),
    )
    question, answer, name = rng.choice(kinds)
    question = question.replace("[how much is|what does]", "how much is")
    slots = {
        "x": name,
        "a": article(name),
        "p": prices.get(name, 0),
        "b": article(asked),
        "all": joined(names),
    }
    turn = Turn(spoken(rng, fill(rng, question, **slots)), fill(rng, answer, **slots))
    if rng.random() < 0.5:
        return Conversation("menu", "menu", (turn,), system=board, expected=turn.assistant)
    return Conversation(
        "menu", "menu", (replace(turn, user=f"{board} {turn.user}"),), expected=turn.assistant
    )
