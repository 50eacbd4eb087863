"""Labels of cells lie where the picture shows the objects."""

from __future__ import annotations

import numpy as np
import pytest

from training.image_cells import cells
from training.image_renderer import PALETTE, render_placed
from training.image_scene import COLOURS, KINDS, Item, Scene


@pytest.mark.parametrize("kind", ["circle", "star", "ring", "hexagon", "cross"])
def test_labelled_cells_have_the_colour_and_others_have_not(kind: str) -> None:
    picture, placed = render_placed(Scene((Item(kind, "blue"),)), np.random.default_rng(3))
    labels = cells(placed)
    blue = np.abs(picture.astype(int) - np.array(PALETTE["blue"])).sum(-1) < 110
    share = blue.reshape(16, 8, 16, 8).mean((1, 3))
    assert set(np.unique(labels[0])) == {0, KINDS.index(kind) + 1}
    assert share[labels[0] > 0].mean() > 0.6
    assert share[labels[0] == 0].mean() < 0.1
    assert np.array_equal(labels[1] > 0, labels[0] > 0)


def test_the_inner_object_hides_the_outer_one() -> None:
    _, placed = render_placed(
        Scene((Item("star", "red"), Item("circle", "green")), "inside"), np.random.default_rng(4)
    )
    labels = cells(placed)
    assert labels[0, 8, 8] == KINDS.index("star") + 1
    assert labels[1, 8, 8] == COLOURS.index("red") + 1
    assert labels[0, 8, 3] == KINDS.index("circle") + 1


def test_sails_belong_to_the_boat_but_have_no_colour_of_its_own() -> None:
    scene = Scene((Item("boat", "black"),), setting="water")
    labels = cells(render_placed(scene, np.random.default_rng(5))[1])
    boat = labels[0] == KINDS.index("boat") + 1
    assert 0 < (labels[1][boat] > 0).sum() < boat.sum()
