"""The checker is right about renders, and says no to wrong pictures."""

from __future__ import annotations

import numpy as np
import pytest

from training.eval_image import wilson
from training.image_checker import check
from training.image_renderer import render
from training.image_scene import COLOURS, KINDS, Item, Pattern, Scene, draw_scene


def test_at_least_95_percent_of_renders_are_called_right() -> None:
    rng = np.random.default_rng(11)
    scenes = [draw_scene(rng) for _ in range(80)]
    right = [check(render(scene, rng), scene).objects for scene in scenes]
    assert np.mean(right) >= 0.95


def test_patterns_do_not_mislead_the_checker() -> None:
    patterns: tuple[Pattern, ...] = ("striped", "dotted", "graded", "speckled")
    rng = np.random.default_rng(10)
    for index, colour in enumerate(COLOURS):
        for pattern in patterns:
            scene = Scene((Item(KINDS[index], colour, pattern=pattern),))
            assert check(render(scene, rng), scene).objects, (colour, pattern)


def test_a_wrong_kind_or_colour_is_called_wrong() -> None:
    rng = np.random.default_rng(12)
    for index in range(40):
        kind, colour = KINDS[index % len(KINDS)], COLOURS[index % len(COLOURS)]
        picture = render(Scene((Item(kind, colour),)), rng)
        other_kind = KINDS[(index + 5) % len(KINDS)]
        other_colour = COLOURS[(index + 3) % len(COLOURS)]
        assert not check(picture, Scene((Item(other_kind, colour),))).objects
        assert not check(picture, Scene((Item(kind, other_colour),))).objects


def test_swapped_colours_are_not_right_though_both_are_there() -> None:
    picture = render(Scene((Item("star", "red"), Item("heart", "blue"))), np.random.default_rng(13))
    verdict = check(picture, Scene((Item("star", "blue"), Item("heart", "red"))))
    assert verdict.kinds
    assert verdict.colours
    assert not verdict.objects


@pytest.mark.parametrize(("asked", "right"), [("left", True), ("right", False), ("above", False)])
def test_relations_are_told_apart(asked: str, right: bool) -> None:
    items = (Item("cross", "green"), Item("ring", "purple"))
    picture = render(Scene(items, "left"), np.random.default_rng(14))
    assert check(picture, Scene(items, asked)).relation is right  # type: ignore[arg-type]


def test_a_missing_object_and_a_wrong_hour_are_noticed() -> None:
    rng = np.random.default_rng(15)
    three = render(Scene((Item("moon", "yellow", count=3),)), rng)
    assert check(three, Scene((Item("moon", "yellow", count=3),))).count
    assert not check(three, Scene((Item("moon", "yellow", count=4),))).count
    night = Scene((Item("boat", "yellow"),), setting="water", hour="night")
    seen_by_day = check(render(night, rng), Scene(night.items, setting="water", hour="day"))
    assert seen_by_day.hour is False


def test_noise_is_never_right() -> None:
    noise = np.random.default_rng(16).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    assert not check(noise, Scene((Item("circle", "red"),))).objects


def test_wilson_interval_of_a_known_case() -> None:
    low, high = wilson(12, 20)
    assert low == pytest.approx(0.387, abs=0.002)
    assert high == pytest.approx(0.781, abs=0.002)
