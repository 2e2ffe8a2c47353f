"""A mask that grows: the same as the largest of all pixels around, whatever their number."""

import pytest
import torch
import torch.nn.functional as F

from kvlock.media.mask_files import dilate_mask


def slow(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """The maximum over a square."""
    return F.max_pool2d(mask.float(), 2 * pixels + 1, stride=1, padding=pixels) > 0


@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 17, 40])
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 9), (12, 19)])
def test_every_pixel_within_reach_is_marked(pixels, size):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, *size, generator=generator) > 0.95
    mask[0] = False  # nothing grows from nothing
    assert torch.equal(dilate_mask(mask, pixels), slow(mask, pixels))


def test_the_most_that_may_be_asked_for_marks_all():
    mask = torch.zeros(1, 30, 20, dtype=torch.bool)
    mask[0, 3, 4] = True
    assert dilate_mask(mask, 16384).all()
