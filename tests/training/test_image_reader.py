"""What the text encoder is taught: targets depend on the picture, not on its wording."""

from __future__ import annotations

import pytest

from training.image_reader import HEADS, targets
from training.image_scene import Item, Scene

STAR, HEART = Item("star", "red"), Item("heart", "blue", "small")


def test_equal_pictures_have_equal_targets() -> None:
    assert targets(Scene((STAR, HEART), "right")) == targets(Scene((HEART, STAR), "left"))
    assert targets(Scene((STAR, HEART), "below")) == targets(Scene((HEART, STAR), "above"))
    assert targets(Scene((STAR, HEART), "left")) != targets(Scene((HEART, STAR), "left"))
    assert targets(Scene((STAR, HEART), "inside")) != targets(Scene((HEART, STAR), "inside"))


@pytest.mark.parametrize(
    "scene",
    [
        Scene((STAR,)),
        Scene((Item("tree", "white", count=4),), background="gray"),
        Scene((Item("boat", "black"),), setting="water", hour="night"),
        Scene((STAR, HEART), "inside"),
    ],
)
def test_each_target_is_a_class_of_its_head_or_none(scene: Scene) -> None:
    for value, classes in zip(targets(scene), HEADS.values(), strict=True):
        assert value == -100 or 0 <= value < classes
    assert (-100 in targets(scene)) == (len(scene.items) == 1)
