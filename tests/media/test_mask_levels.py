"""Which of a picture's values are the mask: palettes, and numbers instead of shades."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from kvlock.media.video import Clip, write_video
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
    refused,
    saved,
)

BLACK, WHITE, RED, GREEN, GREY = (0, 0, 0), (255,) * 3, (128, 0, 0), (0, 128, 0), (128,) * 3
OFF_BLACK, OFF_WHITE = (9, 7, 8), (246, 250, 248)


def palette_image(indices: np.ndarray, *colours) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([level for colour in colours for level in colour])
    assert image.mode == "P"
    return image


@pytest.mark.parametrize(
    "colours, marked",
    [
        ((BLACK, RED), 1),  # DAVIS: the object in a dark red that luminance would call black
        ((BLACK, WHITE), 1),
        ((WHITE, BLACK), 0),  # sorted by how often a colour occurs, or as the painter had them
        ((OFF_WHITE, OFF_BLACK), 0),
        ((OFF_BLACK, OFF_WHITE), 1),
        ((BLACK, GREY), 1),  # DAVIS' seventh object
        ((BLACK, WHITE, RED, GREEN), 1),
        ((WHITE, BLACK, RED, GREEN), 0),
    ],
)
@pytest.mark.parametrize("bits", [None, 8])
def test_a_palette_of_two_colours(tmp_path, colours, marked, bits):
    """Index 1 inside the square and index 0 around it; `marked` is the one that is the mask."""
    options = {"bits": bits} if bits else {}
    palette_image(STILL[0], *colours).save(tmp_path / "a.png", **options)
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert np.array_equal(read(tmp_path / "a.png"), REPEATED == bool(marked))


def test_all_objects_of_a_davis_palette_are_marked_in_every_frame(tmp_path):
    """Three objects, the third in grey; one frame shows none, and another only the third."""
    davis = (BLACK, RED, GREEN, GREY)
    objects = np.zeros((FRAMES, HEIGHT, WIDTH), int)
    objects[0, 4:8, 4:8], objects[0, 9:12, 3:30], objects[0, 20:24, 40:44] = 1, 2, 3
    objects[2, 30:40, 30:40] = 3
    for number, picture in enumerate(objects):
        palette_image(picture, *davis).save(tmp_path / f"{number}.png")
    assert np.array_equal(read(tmp_path), objects > 0)


def test_black_and_white_with_many_shades_by_luminance(tmp_path):
    """A JPEG's noise, reduced to a palette whose first colour happens to be black."""
    shades = [(i, i, i) for i in (*range(8), *range(248, 256))]
    noise = np.random.default_rng(0).integers(0, 8, STILL[0].shape)
    palette_image(noise + 8 * STILL[0], *shades).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), REPEATED)


def test_a_coloured_palette_that_does_not_begin_with_black_is_refused(tmp_path):
    """Which of its colours is the mask cannot be known."""
    palette_image(STILL[0], (255, 0, 0), WHITE).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "not black and white")


def test_a_transparent_palette_by_its_alpha(tmp_path):
    image = palette_image(STILL[0], WHITE, RED)
    image.save(tmp_path / "a.png", transparency=0)
    assert np.array_equal(read(tmp_path / "a.png"), REPEATED)


# Numbers instead of shades


@pytest.mark.parametrize("dtype, largest", [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1)])
def test_a_picture_of_small_numbers_is_taken_and_said(tmp_path, dtype, largest):
    numbers = STILL[0].astype(dtype)
    numbers[STILL[0]] = np.resize(np.arange(1, largest + 1), STILL.sum())
    mask, (note,) = read_with_notes(saved(tmp_path / "a.png", numbers))
    assert np.array_equal(mask, REPEATED)
    assert f"go from 0 to {largest} and not to 255" in note and "above 0 is taken" in note
    mask, (note,) = read_with_notes(tmp_path / "a.png", invert=True)
    assert np.array_equal(mask, ~REPEATED)


def test_a_folder_is_of_small_numbers_only_if_all_its_pictures_are(tmp_path):
    """A frame without the object holds noise, and a frame with it is white."""
    pictures = grey(MOVING)
    pictures[1] = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH))
    for number, picture in enumerate(pictures):
        saved(tmp_path / f"{number}.png", picture)
    expected = MOVING.copy()
    expected[1] = False
    assert np.array_equal(read(tmp_path), expected)
    for number, picture in enumerate(MOVING.astype(np.uint8)):
        saved(tmp_path / f"{number}.png", picture)
    mask, (note,) = read_with_notes(tmp_path)
    assert np.array_equal(mask, MOVING) and "go from 0 to 1" in note


def test_eight_bits_kept_in_sixteen_are_small_numbers(tmp_path):
    mask, (note,) = read_with_notes(saved(tmp_path / "a.png", grey(STILL[0]).astype(np.uint16)))
    assert np.array_equal(mask, REPEATED) and "above 0 is taken" in note


def test_a_lossy_picture_of_small_numbers_is_empty_and_says_what_it_holds(tmp_path):
    """There they are noise; nothing advises to mark everything."""
    Image.fromarray(STILL[0] * np.uint8(6)).save(tmp_path / "a.jpg", quality=100)
    refused(tmp_path / "a.jpg", r"empty; white marks.*; its brightest value is \d+ of 255$")
    frames = torch.from_numpy(np.repeat(MOVING[..., None], 3, -1).astype(np.uint8))
    like = Clip(frames, Fraction(16), tuple(range(FRAMES)), Fraction(1, 16), tmp_path)
    write_video(tmp_path / "a.mp4", frames, like, lossless=True)
    refused(tmp_path / "a.mp4", "its brightest value is 1 of 255")
