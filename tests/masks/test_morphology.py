"""Refinements against slow ones."""

import numpy as np
import pytest
import torch

from kvlock.masks.morphology import (
    Refinements,
    boxes,
    feathered,
    fill_holes,
    refine,
    shrunk,
    smoothed,
)
from support.scenes import iou


def disc(x: float, y: float, radius: float, side: int = 48) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def test_shrinking_and_growing_are_each_others_opposites_of_a_square():
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 5:15, 5:15] = True
    smaller = shrunk(mask, 2)
    assert smaller.sum() == 36 and smaller[0, 7:13, 7:13].all()
    assert torch.equal(refine(smaller, Refinements(grow=2)), mask)
    assert shrunk(torch.ones(1, 9, 9, dtype=torch.bool), 2).all()  # nothing beyond the frame


def test_holes_are_filled_and_bays_are_not():
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 2:7, 2:7] = True
    mask[0, 4, 4] = False
    mask[0, 2, 4] = False
    filled = fill_holes(mask)
    assert filled[0, 4, 4] and not filled[0, 2, 4] and filled.sum() == mask.sum() + 1


def test_a_flickering_outline_becomes_steady_and_a_moving_disc_keeps_its_shape():
    flicker = torch.stack([disc(24, 24, 10 + 2 * (t % 2)) for t in range(9)])
    steady = smoothed(flicker, 2)
    change = lambda m: (m[1:-2] != m[2:-1]).float().sum()  # noqa: E731
    assert change(steady) < change(flicker) / 3
    moving = torch.stack([disc(14 + 2 * t, 24, 10) for t in range(9)])
    assert min(iou(a, b) for a, b in zip(smoothed(moving, 2), moving)) > 0.93


def test_smoothing_leaves_empty_frames_empty_and_the_ends_alone():
    mask = torch.stack([disc(24, 24, 8 + t % 3) for t in range(7)])
    mask[3] = False
    found = smoothed(mask, 2)
    assert not found[3].any() and torch.equal(found[0], mask[0]) and torch.equal(found[6], mask[6])


def test_a_box_mask_is_each_frames_bounding_box():
    mask = torch.zeros(2, 12, 12, dtype=torch.bool)
    mask[0, 3, 4] = mask[0, 7, 9] = True
    expected = torch.zeros_like(mask)
    expected[0, 3:8, 4:10] = True
    assert torch.equal(boxes(mask), expected)


def test_a_feather_is_symmetric_about_the_outline_and_keeps_the_mask_above_127():
    mask = disc(24, 24, 12)[None]
    levels = feathered(mask, 4)
    assert torch.equal(levels > 127, mask) and levels.dtype == torch.uint8
    across = levels[0, 24].int().numpy()
    assert (np.diff(across[24:]) <= 0).all() and across[24] == 255 and across[44] == 0
    soft = ((across > 0) & (across < 255))[24:].sum()
    assert 7 <= soft <= 9
    assert torch.equal(feathered(mask, 0), mask.byte() * 255)
    assert feathered(torch.ones(1, 8, 8, dtype=torch.bool), 4).min() == 255


def test_everything_in_its_order():
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, 4:7, 4:7] = True
    mask[0, 5, 5] = False
    asked = Refinements(fill_holes=True, grow=1, box_mask=True, invert=True)
    found = refine(mask, asked)
    assert found.sum() == 144 - 25 and not found[0, 3:8, 3:8].any()


@pytest.mark.parametrize("name", ["grow", "shrink", "feather", "smooth"])
def test_a_negative_number_is_refused(name):
    with pytest.raises(ValueError, match=f"--{name} is -1; expected 0 or more"):
        Refinements(**{name: -1})
