"""The source is exact where it is promised, by distances measured one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from kvlock.media.composite import composite

SIZE = (2, 40, 48)
GENERATOR = torch.Generator().manual_seed(0)
SOURCE = torch.randint(0, 256, (*SIZE, 3), dtype=torch.uint8, generator=GENERATOR)
EDITED = torch.randint(0, 256, (*SIZE, 3), dtype=torch.uint8, generator=GENERATOR)
MASK = torch.zeros(SIZE, dtype=torch.bool)
MASK[0, 14:20, 17:25] = MASK[0, 16, 26] = MASK[1, 0:5, 43:48] = True  # one at the corner


def squared_distances(mask: torch.Tensor) -> torch.Tensor:
    """Of every pixel to its frame's mask, by looking at each pair; huge without a mask."""
    found = np.full(mask.shape, 10**9)
    for f, j, i in mask.nonzero().tolist():
        for y, x in np.ndindex(*mask.shape[1:]):
            found[f, y, x] = min(found[f, y, x], (y - j) ** 2 + (x - i) ** 2)
    return torch.from_numpy(found)


SQUARED = squared_distances(MASK)


def slow_composite(source, edited, squared, dilate, feather) -> torch.Tensor:
    """Pixel by pixel, from distances measured one by one."""
    result = source.clone()
    for f, y, x in np.ndindex(*squared.shape):
        distance = float(squared[f, y, x]) ** 0.5
        if distance <= dilate:
            result[f, y, x] = edited[f, y, x]
        elif distance < dilate + feather:
            part = (distance - dilate) / feather
            weight = 1 - (3 * part**2 - 2 * part**3)
            mixed = weight * edited[f, y, x].double() + (1 - weight) * source[f, y, x].double()
            result[f, y, x] = mixed.round().to(torch.uint8)
    return result


@pytest.mark.parametrize("dilate, feather", [(4, 4), (0, 0), (3, 0), (0, 6), (2, 5), (1, 1)])
def test_source_outside_edit_inside_and_a_mixture_between(dilate, feather):
    result = composite(SOURCE, EDITED, MASK, dilate, feather)
    assert result.dtype == torch.uint8 and result.shape == SOURCE.shape
    inside, outside = SQUARED <= dilate**2, SQUARED > (dilate + feather) ** 2
    assert torch.equal(result[inside], EDITED[inside])
    assert torch.equal(result[outside], SOURCE[outside]) and outside.any()
    slow = slow_composite(SOURCE, EDITED, SQUARED, dilate, feather)
    assert int((result.int() - slow.int()).abs().max()) <= 1  # where a mixture lies at a half


SMALL = st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24))


@settings(max_examples=60, deadline=None)
@given(size=SMALL, dilate=st.integers(0, 5), feather=st.integers(0, 5), data=st.data())
def test_any_mask_at_any_edge(size, dilate, feather, data):
    """None, one or a few pixels a frame, wherever they lie."""
    spots = st.tuples(*(st.integers(0, side - 1) for side in size))
    mask = torch.zeros(size, dtype=torch.bool)
    for spot in data.draw(st.lists(spots, max_size=4)):
        mask[spot] = True
    source = torch.zeros(*size, 3, dtype=torch.uint8)
    edited = torch.full((*size, 3), 255, dtype=torch.uint8)
    result = composite(source, edited, mask, dilate, feather)
    squared = squared_distances(mask)
    assert torch.equal(result[squared <= dilate**2], edited[squared <= dilate**2])
    outside = squared > (dilate + feather) ** 2
    assert torch.equal(result[outside], source[outside])
    slow = slow_composite(source, edited, squared, dilate, feather)
    assert int((result.int() - slow.int()).abs().max()) <= 1


@pytest.mark.parametrize("density", [1e-5, 1e-3, 0.3])
def test_the_source_is_exact_beyond_eight_pixels_of_a_large_picture(density):
    """Diagonals and far rows among them, against scipy's distances in double precision."""
    generator = np.random.default_rng(0)
    mask = generator.random((1, 700, 1300)) < density
    mask[0, 699, 1299] = mask[0, 0, 300] = True
    source = torch.from_numpy(generator.integers(0, 256, (1, 700, 1300, 3), np.uint8))
    result = composite(source, ~source, torch.from_numpy(mask))
    touched = (result != source).any(-1)[0].numpy()
    distance = distance_transform_edt(~mask[0])
    assert not touched[distance > 8].any() and touched[distance <= 4].all()
    assert touched[(distance > 4) & (distance < 6)].all()  # the feather is used


def test_the_feather_is_one_weight_for_all_channels_that_falls_outwards():
    black, white = torch.zeros_like(SOURCE), torch.full_like(SOURCE, 255)
    weight = composite(black, white, MASK, dilate=4, feather=4)
    assert (weight == weight[..., :1]).all()
    row = weight[0, 17, 24:40, 0].int()  # outwards from inside the mask
    assert (row.diff() <= 0).all() and row[0] == 255 and row[-1] == 0
    assert int(((row > 0) & (row < 255)).sum()) >= 3


def test_a_full_mask_is_the_edit_an_empty_one_the_source_and_the_inputs_are_left_alone():
    source, edited, mask = SOURCE.clone(), EDITED.clone(), torch.ones(SIZE, dtype=torch.bool)
    assert torch.equal(composite(source, edited, mask), EDITED)
    assert torch.equal(composite(source, edited, ~mask), SOURCE)
    assert torch.equal(source, SOURCE) and torch.equal(edited, EDITED) and mask.all()


def test_clips_that_lie_elsewhere_in_memory():
    """One mask for all frames without a copy, frames stored by channel, and every second one."""
    wide = torch.stack([SOURCE, EDITED]).permute(0, 1, 4, 2, 3).contiguous()
    source, edited = wide.permute(0, 1, 3, 4, 2)
    mask = MASK[:1].expand(2, -1, -1)
    expected = composite(SOURCE, EDITED, mask.clone())
    assert torch.equal(composite(source, edited, mask), expected)
    doubled = [clip.repeat_interleave(2, 0) for clip in (SOURCE, EDITED, mask)]
    assert torch.equal(composite(*(clip[::2] for clip in doubled)), expected)


@pytest.mark.parametrize("distances", [dict(dilate=-1), dict(feather=-2)])
def test_a_negative_distance_is_refused(distances):
    with pytest.raises(ValueError, match=r"(dilate is -1|feather is -2); expected 0 or more"):
        composite(SOURCE, EDITED, MASK, **distances)
