import numpy as np
import pytest

from kvlock.media.composite import composite

SIZE = (2, 40, 48)
GENERATOR = np.random.default_rng(0)
SOURCE = GENERATOR.integers(0, 256, (*SIZE, 3), np.uint8)
EDITED = GENERATOR.integers(0, 256, (*SIZE, 3), np.uint8)
MASK = np.zeros(SIZE, bool)
MASK[0, 14:20, 17:25] = MASK[0, 16, 26] = MASK[1, 0:5, 43:48] = True  # one at the corner


def distance(mask: np.ndarray) -> np.ndarray:
    """Chebyshev distance of every pixel to the mask."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    return np.min([np.maximum(abs(y - j), abs(x - i)) for j, i in np.argwhere(mask)], axis=0)


DISTANCE = np.stack([distance(m) for m in MASK])


@pytest.mark.parametrize("dilate, feather", [(4, 4), (0, 0), (3, 0), (0, 6), (2, 5), (1, 1)])
def test_source_outside_edit_inside_and_a_mixture_between(dilate, feather):
    result = composite(SOURCE, EDITED, MASK, dilate, feather)
    assert result.dtype == np.uint8 and result.shape == SOURCE.shape
    inside, outside = DISTANCE <= dilate, DISTANCE > dilate + feather
    assert np.array_equal(result[inside], EDITED[inside])
    assert np.array_equal(result[outside], SOURCE[outside]) and outside.any()
    assert (np.minimum(SOURCE, EDITED) <= result).all() and (result <= np.maximum(SOURCE, EDITED)).all()


def test_the_feather_is_one_weight_for_all_channels_that_falls_outwards():
    black, white = np.zeros_like(SOURCE), np.full_like(SOURCE, 255)
    weight = composite(black, white, MASK, dilate=4, feather=4)
    assert (weight == weight[..., :1]).all()
    row = weight[0, 17, 24:40, 0].astype(int)  # outwards from inside the mask
    assert (np.diff(row) <= 0).all() and row[0] == 255 and row[-1] == 0
    assert ((row > 0) & (row < 255)).sum() >= 3


def test_the_default_never_touches_beyond_eight_pixels():
    result = composite(SOURCE, 255 - SOURCE, MASK)
    touched = (result != SOURCE).any(-1)
    assert not touched[DISTANCE > 8].any() and touched[DISTANCE <= 4].all()


def test_a_full_mask_is_the_edit_and_the_inputs_are_left_alone():
    source, edited, mask = SOURCE.copy(), EDITED.copy(), np.ones(SIZE, bool)
    assert np.array_equal(composite(source, edited, mask), EDITED)
    assert np.array_equal(source, SOURCE) and np.array_equal(edited, EDITED) and mask.all()
