"""What is shown is what was given, at a size that can be looked at."""

import numpy as np
import pytest
import torch

from kvlock.media.pictures import contact_sheet, mask_overlay, side_by_side
from kvlock.media.video import write_video
from support.clips import like, noisy

SOURCE, EDITED = noisy(8, 96, 80), noisy(8, 96, 80, seed=1)
MASK = torch.zeros(8, 96, 80, dtype=torch.bool)
MASK[:, 10:40, 20:60] = True
PROMPT = "a red fox that runs through deep snow under pine trees in the evening light, " * 9


# Side by side


@pytest.mark.parametrize("height, factor", [(96, 3), (95, 4), (288, 1), (300, 1)])
def test_side_by_side_shows_all_three_large_enough(height, factor):
    source, edited = noisy(8, height, 80), noisy(8, height, 80, seed=1)
    mask = noisy(8, height, 80, seed=2)[..., 0] > 200
    joined = side_by_side(source, mask, edited)
    assert joined.shape == (8, height * factor, 3 * 80 * factor, 3)
    assert joined.dtype == torch.uint8
    left, middle, right = joined[:, ::factor, ::factor].chunk(3, dim=2)
    assert torch.equal(left, source) and torch.equal(right, edited)
    assert torch.equal(middle, mask[..., None].byte().expand(-1, -1, -1, 3) * 255)


@pytest.mark.parametrize("height, width", [(289, 301), (289, 302), (300, 301), (47, 33)])
def test_odd_sides_get_one_more_row_or_column(height, width):
    source, edited = noisy(2, height, width), noisy(2, height, width, seed=1)
    mask = torch.ones(2, height, width, dtype=torch.bool)
    joined = side_by_side(source, mask, edited)
    factor = max(1, -(-288 // height))
    high, wide = height * factor, 3 * width * factor
    assert joined.shape[1:3] == (high + high % 2, wide + wide % 2)
    assert torch.equal(joined[:, :high:factor, : wide // 3 : factor], source)
    assert torch.equal(joined[:, high:], joined[:, high - 1 : high].expand_as(joined[:, high:]))
    assert torch.equal(joined[:, :, wide:], joined[:, :, wide - 1 : wide][:, :, : wide % 2])


@pytest.mark.parametrize(
    "height, width, shown",
    [
        (1080, 1920, (720, 3840)),
        (720, 1280, (720, 3840)),
        (2160, 3840, (720, 3840)),
        (1920, 1080, (1920, 3240)),
        (3840, 2160, (2160, 3646)),
        (90, 4000, (30, 3840)),
        (4000, 90, (2160, 148)),
    ],
)
def test_large_clips_are_reduced_until_every_player_takes_them(height, width, shown):
    clip = torch.full((1, height, width, 3), 200, dtype=torch.uint8)
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    joined = side_by_side(clip, mask, clip)
    assert joined.shape[1:3] == shown and shown[1] <= 3840 and shown[0] <= 2160
    assert joined[0, :, :10].eq(200).all() and joined[0, 5, shown[1] // 2].eq(0).all()


def test_a_reduced_clip_is_averaged_and_can_be_encoded(tmp_path):
    """Every second pixel would show one colour alone."""
    stripes = torch.zeros(2, 1080, 2560, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 254
    mask = torch.zeros(2, 1080, 2560, dtype=torch.bool)
    joined = side_by_side(stripes, mask, stripes)
    assert joined.shape == (2, 540, 3840, 3) and joined[:, :, :1280].eq(127).all()
    write_video(tmp_path / "a.mp4", joined, like(2))


# The sheet


def ink(sheet, top: int, bottom: int) -> int:
    """The rightmost column with something dark, or -1."""
    dark = np.flatnonzero((np.asarray(sheet)[top:bottom] < 128).any(axis=(0, 2)))
    return int(dark[-1]) if len(dark) else -1


@pytest.mark.parametrize("frames, columns", [(1, 1), (3, 3), (6, 6), (8, 6)])
def test_a_contact_sheet_has_a_row_a_clip_and_up_to_six_frames(frames, columns):
    """Frames of 80x96 are shown at 160x192, each row under a name of 20 pixels."""
    sheet = contact_sheet({"source": SOURCE[:frames], "edited": EDITED[:frames]})
    width = max(columns * (160 + 4) + 4, 480)
    assert sheet.mode == "RGB" and sheet.size == (width, 2 * (20 + 192 + 4) + 4)
    pixels = torch.from_numpy(np.array(sheet))
    for row, clip in enumerate((SOURCE, EDITED)):
        top = 4 + row * (20 + 192 + 4) + 20
        cells = pixels[top : top + 192 : 2]
        assert torch.equal(cells[:, 4:164:2], clip[0])
        left = 4 + (columns - 1) * 164
        assert torch.equal(cells[:, left : left + 160 : 2], clip[frames - 1])
        assert 20 < ink(sheet, top - 20, top) < 100  # the name


@pytest.mark.parametrize("height, width", [(1080, 1920), (720, 1280), (1920, 1080), (2160, 3840)])
def test_the_sheet_of_a_real_clip_is_not_wider_than_1600(height, width):
    clip = torch.full((6, height, width, 3), 90, dtype=torch.uint8)
    clip[:, ::2] = 110
    sheet = contact_sheet({"source": clip, "edited": clip})
    assert sheet.width <= 1600 and sheet.height <= 2 * (400 + 20 + 4) + 4
    cell = np.asarray(sheet)[40, 100]
    assert abs(int(cell[0]) - 100) <= 10  # averaged, and neither of the two
    assert sheet.width > 1590 or sheet.height > 2 * 400


@pytest.mark.parametrize("size", [(8, 8), (96, 96), (768, 512), (40, 1000), (1000, 40)])
def test_a_sheet_of_any_clip_is_large_enough_to_see(size):
    sheet = contact_sheet({"source": noisy(6, *size)})
    assert 480 <= sheet.width <= 1600 and sheet.height <= 450
    assert sheet.height > 100 or size == (40, 1000)


@pytest.mark.parametrize("frames, lines", [(1, 3), (6, 2)])
def test_a_long_name_is_wrapped_and_cut_to_the_sheets_width(frames, lines):
    long = "variant-1: " + PROMPT[: 180 if frames == 6 else None]
    sheet = contact_sheet({"short": SOURCE[:frames], long: EDITED[:frames]})
    plain = contact_sheet({"short": SOURCE[:frames], "name": EDITED[:frames]})
    assert sheet.width == plain.width
    assert sheet.height == plain.height + (lines - 1) * 20
    top = 4 + 20 + 192 + 4
    assert sheet.width * 0.6 < ink(sheet, top, top + 20) < sheet.width - 4
    assert ink(sheet, top + 20 * (lines - 1), top + 20 * lines) < sheet.width - 4


@pytest.mark.parametrize("name", ["x" * 400, "", "two\nlines\tand a tab", "甲虫 Käfer"])
def test_any_name_fits(name):
    sheet = contact_sheet({name: SOURCE, "other": EDITED})
    assert sheet.size == (6 * 164 + 4, 2 * (20 + 192 + 4) + 4)
    assert ink(sheet, 4, 24) < sheet.width - 4


def test_the_overlay_tints_the_mask_alone():
    shown = mask_overlay(SOURCE, MASK)
    assert shown.dtype == torch.uint8 and torch.equal(shown[~MASK], SOURCE[~MASK])
    tinted = SOURCE[MASK] // 2 + torch.tensor([127, 0, 0], dtype=torch.uint8)
    assert torch.equal(shown[MASK], tinted)
