import numpy as np
import pytest
from PIL import Image

from kvlock.core.types import StepRecord
from kvlock.media.pictures import contact_sheet, mask_overlay, plot_trace, side_by_side

GENERATOR = np.random.default_rng(0)
SOURCE = GENERATOR.integers(0, 256, (8, 96, 80, 3), np.uint8)
EDITED = GENERATOR.integers(0, 256, (8, 96, 80, 3), np.uint8)
MASK = np.zeros((8, 96, 80), bool)
MASK[:, 10:40, 20:60] = True


@pytest.mark.parametrize("height, factor", [(96, 3), (95, 4), (288, 1), (300, 1)])
def test_side_by_side_shows_all_three_large_enough(height, factor):
    source, edited = (np.resize(clip, (8, height, 80, 3)) for clip in (SOURCE, EDITED))
    mask = np.resize(MASK, (8, height, 80))
    joined = side_by_side(source, mask, edited)
    assert joined.shape == (8, height * factor, 3 * 80 * factor, 3) and joined.dtype == np.uint8
    left, middle, right = np.split(joined[:, ::factor, ::factor], 3, axis=2)
    assert np.array_equal(left, source) and np.array_equal(right, edited)
    assert np.array_equal(middle, np.repeat(mask[..., None], 3, -1) * np.uint8(255))


@pytest.mark.parametrize("frames, columns", [(1, 1), (3, 3), (6, 6), (8, 6)])
def test_a_contact_sheet_has_a_row_a_clip_and_up_to_six_frames(frames, columns):
    rows = {"source": SOURCE[:frames], "edited": EDITED[:frames]}
    sheet = contact_sheet(rows)
    assert sheet.mode == "RGB" and sheet.size == (columns * (80 + 4) + 4, 2 * (96 + 14 + 4) + 4)
    pixels = np.asarray(sheet)
    for row, clip in enumerate(rows.values()):
        top = 4 + row * (96 + 14 + 4) + 14
        assert np.array_equal(pixels[top : top + 96, 4:84], clip[0])
        assert np.array_equal(pixels[top : top + 96, -84:-4], clip[-1])
        assert (pixels[top - 14 : top] < 128).any()  # the name


def test_small_clips_are_enlarged_on_a_contact_sheet():
    assert contact_sheet({"source": SOURCE[:2, :48, :40]}).size == (2 * (120 + 4) + 4, 144 + 14 + 4 + 4)


def test_the_overlay_tints_the_mask_alone():
    shown = mask_overlay(SOURCE, MASK)
    assert shown.dtype == np.uint8 and np.array_equal(shown[~MASK], SOURCE[~MASK])
    assert np.array_equal(shown[MASK], SOURCE[MASK] // 2 + [127, 0, 0])


@pytest.mark.parametrize("variances", [(0.1, 0.02, 0.004), (None, 0.02, None), (None, None, None)])
def test_a_trace_is_plotted_the_same_twice(tmp_path, variances):
    trace = [StepRecord(i, 1 - i / 3, v, 0.5, 5.0 + i, v and 0.9) for i, v in enumerate(variances)]
    for name in "ab":
        plot_trace(trace, 0.01, tmp_path / f"{name}.png")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.format == "PNG" and image.width > 400 and image.height > 400
        assert len(image.convert("RGB").getcolors(10**6)) > 10
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_is_not_in_use_is_not_plotted(tmp_path):
    trace = [StepRecord(i, 0.5, 0.1, 0.5, 3.0, None) for i in range(3)]
    with_scale = [StepRecord(i, 0.5, 0.1, 0.5, 3.0, 1.0) for i in range(3)]
    plots = []
    for records, threshold in ((trace, None), (trace, 0.03), (with_scale, None)):
        plot_trace(records, threshold, tmp_path / "plot.png")
        plots.append((tmp_path / "plot.png").read_bytes())
    assert len(set(plots)) == 3


def test_another_trace_gives_another_plot(tmp_path):
    for name, scale in (("a", 1.0), ("b", 7.0)):
        plot_trace([StepRecord(i, 0.5, 0.1, 0.5, scale * i, 1.0) for i in range(3)], 0.01, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
