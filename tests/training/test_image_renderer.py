"""The renderer's world: repeatable, complete, and with the held-out scenes kept apart."""

from __future__ import annotations

import numpy as np
import pytest

from training.image_captions import caption, plain_caption
from training.image_renderer import render
from training.image_scene import COLOURS, KINDS, Item, Pattern, Scene, draw_scene, draw_unseen, is_held_out


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_its_colour(kind: str) -> None:
    scene = Scene((Item(kind, "blue"),))
    picture = render(scene, np.random.default_rng(0)).astype(int)
    assert picture.shape == (128, 128, 3)
    bluish = (picture[..., 2] > picture[..., 0] + 60) & (picture[..., 2] > picture[..., 1] + 60)
    assert bluish.sum() > 300


def test_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    scene = Scene((Item("star", "red"),))
    first, second, other = (render(scene, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_objects_have_fine_detail_and_shading() -> None:
    picture = render(Scene((Item("circle", "green"),)), np.random.default_rng(1))
    assert len(np.unique(picture[48:80, 48:80].reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize("pattern", ["striped", "dotted", "graded", "speckled"])
def test_patterns_are_drawn_and_named(pattern: Pattern) -> None:
    plain, patterned = Scene((Item("square", "blue"),)), Scene((Item("square", "blue", pattern=pattern),))
    first, second = (render(scene, np.random.default_rng(1)).astype(float) for scene in (plain, patterned))
    assert np.abs(first - second)[48:80, 48:80].mean() > 4
    assert np.abs(first - second)[:16].mean() < 0.1
    assert plain_caption(patterned, np.random.default_rng(2)) != plain_caption(
        plain, np.random.default_rng(2)
    )


def test_relation_decides_who_is_where() -> None:
    def middle_of_red(relation: str) -> tuple[float, float]:
        scene = Scene((Item("square", "red"), Item("circle", "blue")), relation)  # type: ignore[arg-type]
        picture = render(scene, np.random.default_rng(2)).astype(int)
        rows, columns = np.nonzero((picture[..., 0] > 150) & (picture[..., 2] < 90))
        return float(columns.mean()), float(rows.mean())

    assert middle_of_red("left")[0] < 50 < 78 < middle_of_red("right")[0]
    assert middle_of_red("above")[1] < 50 < 78 < middle_of_red("below")[1]


def test_captions_name_every_kind_and_colour() -> None:
    rng = np.random.default_rng(3)
    for colour in COLOURS:
        text = plain_caption(Scene((Item("star", colour, "small"), Item("house", "black")), "left"), rng)
        assert colour in text
        assert "star" in text
        assert "black" in text


def test_a_colour_and_kind_survive_the_conversation_around_them() -> None:
    rng = np.random.default_rng(4)
    scene = Scene((Item("boat", "blue"),), setting="water", hour="night")
    texts = {caption(scene, rng) for _ in range(100)}
    assert len(texts) > 80
    assert all("blue" in text for text in texts)
    assert any("tell me about" in text for text in texts)


def test_red_boats_and_a_tenth_of_the_rest_are_held_out() -> None:
    assert is_held_out(Scene((Item("boat", "red"),), setting="water"))
    assert is_held_out(Scene((Item("tree", "green"), Item("boat", "red", "large")), "above"))
    rng = np.random.default_rng(5)
    share = np.mean([is_held_out(draw_scene(rng)) for _ in range(3000)])
    assert 0.07 < share < 0.16
    assert is_held_out(draw_unseen(rng))


def test_two_object_combinations_are_held_out_in_any_order_and_relation() -> None:
    rng = np.random.default_rng(6)
    pairs = [scene for scene in (draw_scene(rng) for _ in range(400)) if len(scene.items) == 2]
    for scene in pairs:
        first, second = scene.items
        turned = Scene((Item(second.kind, second.colour), Item(first.kind, first.colour)), "below")
        assert is_held_out(scene) == is_held_out(turned)
