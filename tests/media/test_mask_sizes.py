"""What is done to a mask: inverted, grown, scaled, turned upright."""

import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.media.mask_files import dilate_mask
from support.masks import (
    FRAMES,
    HEIGHT,
    MOVING,
    REPEATED,
    STILL,
    WIDTH,
    grey,
    read,
    read_with_notes,
    saved,
)


def test_invert(tmp_path):
    assert np.array_equal(read(saved(tmp_path / "a.npy", MOVING), invert=True), ~MOVING)


def test_dilate_grows_by_pixels_on_every_side_and_after_inverting(tmp_path):
    path = saved(tmp_path / "a.npy", MOVING)
    expected = np.zeros_like(MOVING)
    for frame, y, x in np.argwhere(MOVING):
        expected[frame, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = True
    assert np.array_equal(read(path, dilate=3), expected)
    assert np.array_equal(read(saved(path, ~MOVING), invert=True, dilate=3), expected)


def test_dilating_by_nothing_changes_nothing():
    mask = torch.from_numpy(MOVING)
    assert torch.equal(dilate_mask(mask, 0), mask)


def test_a_negative_dilation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dilate is -1; expected 0 or more"):
        read(saved(tmp_path / "a.npy", MOVING), dilate=-1)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_larger_mask_of_the_same_aspect_is_scaled_and_all_that_it_marks_stays(tmp_path, factor):
    large = np.zeros((FRAMES, HEIGHT * factor, WIDTH * factor), bool)
    spots = np.random.default_rng(0).integers(0, large.shape, (30, 3))
    large[tuple(spots.T)] = True
    expected = np.zeros_like(MOVING)
    expected[tuple((spots // (1, factor, factor)).T)] = True
    mask, (note,) = read_with_notes(saved(tmp_path / "a.npy", large))
    assert np.array_equal(mask, expected)
    size = f"{WIDTH * factor}x{HEIGHT * factor}"
    assert f"the mask is {size}, the clip 64x48; the mask is scaled" in note


def test_a_smaller_mask_is_scaled_to_whole_blocks(tmp_path):
    mask, (note,) = read_with_notes(saved(tmp_path / "a.npy", MOVING[:, ::4, ::4]))
    assert np.array_equal(mask, MOVING) and "16x12" in note


@pytest.mark.parametrize("size", [(97, 129), (95, 127), (24, 32), (47, 63), (480, 641)])
def test_a_mask_is_scaled_in_any_ratio_and_after_it_is_inverted(tmp_path, size):
    """One marked pixel falls on every pixel of the clip that it touches."""
    mask = np.zeros((1, *size), bool)
    mask[0, size[0] // 3, size[1] // 2] = True
    rows, columns = (
        slice(p * to // own, -(-(p + 1) * to // own))
        for p, own, to in zip((size[0] // 3, size[1] // 2), size, (HEIGHT, WIDTH))
    )
    expected = np.zeros_like(MOVING)
    expected[:, rows, columns] = True
    found, _ = read_with_notes(saved(tmp_path / "a.npy", mask))
    assert np.array_equal(found, expected)
    found, _ = read_with_notes(saved(tmp_path / "a.npy", ~mask), invert=True)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_is_turned_upright_by_its_exif(tmp_path, orientation):
    stored = Image.fromarray(grey(STILL[0]))
    turn = {3: 180, 6: 90, 8: 270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.rotate(turn, expand=True).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png"), REPEATED)


def test_what_its_video_says_is_passed_on(tmp_path):
    """A gif without an end mark, that is."""
    images = [Image.fromarray(m) for m in grey(MOVING)]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=60)
    path.write_bytes(path.read_bytes()[:-1])
    mask, (note,) = read_with_notes(path)
    assert np.array_equal(mask, MOVING) and "no end mark" in note
