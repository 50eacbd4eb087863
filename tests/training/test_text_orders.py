"""Taskmaster-4 orders as a question and an answer in one form that is read back without loss."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from training.text_conversation import Turn
from training.text_orders import Dialogue, Ordered, dialogues, order_said_back, parsed_order

LATTE = Ordered("latte", frozenset({"decaf", "oat milk"}))
MOCHA = Ordered("mocha", frozenset())
TALK = (Turn("A decaf Latte with Oat milk and a mocha, please.", "Is the order right?"),)


def _record(name: str, item: str, last_first: bool = False) -> dict[str, object]:
    def details(drink: str) -> list[list[str]]:
        listed = {
            "menu_items": [
                {
                    "menu_item_id": f"{drink}-1234",
                    "menu_item_name": name,
                    "attributes": [{"attribute_id": "milk-options", "option": "Oat  Milk"}],
                }
            ]
        }
        return [["api_response", "get_order_details"], ["response", json.dumps(listed)]]

    calls = details("americano") + details(item) if last_first else details(item)
    return {
        "id": "x",
        "turns": [{"s": "U", "t": "Hi!", "api": calls}, {"s": "A", "t": "Right?"}, {"s": "U", "t": "Yes."}],
    }


def _read(tmp_path: Path, *found: dict[str, object]) -> list[Dialogue]:
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in found), encoding="utf-8")
    return list(dialogues(path))


def test_an_order_is_read_back() -> None:
    asked = Dialogue("x", TALK, (LATTE, MOCHA)).asked("What is my order?")
    assert asked.expected == "Your order: latte, decaf, oat milk; mocha."
    assert parsed_order(str(asked.expected)) == [LATTE, MOCHA]
    assert parsed_order("I do not know.") == []


@pytest.mark.parametrize(
    ("name", "item"), [("Mocha ", "mocha"), ("var_drink", "mocha"), ("A mocha?", "mocha")]
)
def test_names_are_plain_and_come_from_the_id_where_they_are_none(
    tmp_path: Path, name: str, item: str
) -> None:
    (found,) = _read(tmp_path, _record(name, item))
    assert found.items == (Ordered("mocha", frozenset({"oat milk"})),)
    assert found.turns == (Turn("Hi!", "Right?"),)


def test_the_last_details_define_the_order(tmp_path: Path) -> None:
    (found,) = _read(tmp_path, _record("var_drink", "mocha", last_first=True))
    assert [item.name for item in found.items] == ["mocha"]


def test_dialogues_without_details_are_left_out(tmp_path: Path) -> None:
    turns = [{"s": "U", "t": "Hi!"}, {"s": "A", "t": "Hello!"}]
    assert _read(tmp_path, {"id": "x", "turns": turns}) == []


def test_a_replaced_drink_is_replaced_in_talk_and_order() -> None:
    rng, known = random.Random(2), [Dialogue("x", TALK, (LATTE, MOCHA))]
    for _ in range(100):
        made = order_said_back(rng, known)
        for item in parsed_order(made.turns[-1].assistant):
            assert item.name in made.turns[0].user.lower()
            assert item.options <= {"decaf", "oat milk"}
