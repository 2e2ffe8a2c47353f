import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlock.media.fit import Fit, fit_mask, fit_to_model, fit_video, scale_mask, unfit_video
from support.clips import noisy, smooth

SIZES = st.tuples(st.integers(2, 12), st.integers(1, 70), st.integers(1, 70))
MULTIPLES = st.sampled_from([(16, 16), (8, 16), (2, 2)])


@settings(max_examples=100, deadline=None)
@given(
    source=st.tuples(st.integers(2, 200), st.integers(1, 2000), st.integers(1, 2000)),
    multiple=st.sampled_from([(16, 16), (8, 16), (32, 32)]),
    stride=st.sampled_from([1, 4, 8]),
    area=st.sampled_from([None, 96 * 96, 480 * 832]),
)
def test_the_model_size_is_made_of_multiples_and_the_nearest(source, multiple, stride, area):
    fit = fit_to_model(source, multiple, stride, area, None)
    (frames, *sides), (model_frames, *model_sides) = source, fit.model
    assert fit.source == source
    assert (model_frames - 1) % stride == 0 and 0 <= model_frames - frames < stride
    scale = math.sqrt(area / math.prod(sides)) if area else 1
    for side, model_side, step in zip(sides, model_sides, multiple):
        assert model_side % step == 0 and model_side >= step
        assert abs(model_side - side * scale) <= step / 2 or model_side == step


@pytest.mark.parametrize("height, width", [(720, 1280), (768, 512), (480, 720), (1080, 1920)])
def test_the_aspect_and_the_area_are_nearly_kept(height, width):
    _, model_height, model_width = fit_to_model(
        (17, height, width), (16, 16), 4, 480 * 832, None
    ).model
    assert model_width / model_height == pytest.approx(width / height, rel=0.04)
    assert model_height * model_width == pytest.approx(480 * 832, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(source=SIZES, multiple=MULTIPLES, area=st.sampled_from([None, 32 * 32]))
def test_there_and_back_gives_the_size_and_the_count_of_the_source(source, multiple, area):
    fit = fit_to_model(source, multiple, 4, area, None)
    video = smooth(*source)
    fitted = fit_video(video, fit)
    assert tuple(fitted.shape) == (*fit.model, 3) and fitted.dtype == torch.uint8
    assert all(torch.equal(frame, fitted[source[0] - 1]) for frame in fitted[source[0] :])
    back = unfit_video(fitted, fit)
    assert back.shape == video.shape and back.dtype == torch.uint8


def test_there_and_back_keeps_a_smooth_picture():
    video = smooth(6, 45, 75)
    fit = fit_to_model(video.shape[:3], (16, 16), 4, None, None)
    assert fit.model == (9, 48, 80)
    back = unfit_video(fit_video(video, fit), fit)
    assert int((back.int() - video.int()).abs().max()) <= 6


def test_where_nothing_has_to_change_nothing_does():
    video = noisy(5, 32, 48)
    mask = video[..., 0] > 128
    fit = fit_to_model((5, 32, 48), (16, 16), 4, None, 5)
    assert fit.model == fit.source and str(fit) == "edited at its own size 48x32; 5 frames"
    assert torch.equal(fit_video(video, fit), video)
    assert torch.equal(unfit_video(fit_video(video, fit), fit), video)
    assert torch.equal(fit_mask(mask, fit), mask)


@settings(max_examples=200, deadline=None)
@given(
    source=SIZES, multiple=MULTIPLES, area=st.sampled_from([None, 32 * 32, 64 * 64]), data=st.data()
)
def test_an_edited_pixel_frees_exactly_the_pixels_it_falls_on(source, multiple, area, data):
    fit = fit_to_model(source, multiple, 4, area, None)
    spot = [data.draw(st.integers(0, side - 1)) for side in source]
    mask = torch.zeros(source, dtype=torch.bool)
    mask[tuple(spot)] = True
    expected = np.zeros(fit.model, bool)
    rows, columns = (
        slice(p * side // own, -(-(p + 1) * side // own))
        for p, side, own in zip(spot[1:], fit.model[1:], source[1:])
    )
    expected[spot[0], rows, columns] = True
    if spot[0] == source[0] - 1:
        expected[spot[0] :, rows, columns] = True  # the repeated last frame
    fitted = fit_mask(mask, fit)
    assert fitted.dtype == torch.bool and fitted.any()
    assert np.array_equal(fitted.numpy(), expected)


@pytest.mark.parametrize("frames", [0, 1])
def test_a_clip_too_short_is_refused(frames):
    with pytest.raises(ValueError, match=f"the clip has {frames} frame; expected at least 2"):
        fit_to_model((frames, 32, 32), (16, 16), 4, None, None)


@pytest.mark.parametrize("frames, most, advised", [(6, 5, 5), (8, 7, 5), (7, 6, 5)])
def test_a_clip_too_long_is_refused_with_a_count_that_fits(frames, most, advised):
    with pytest.raises(
        ValueError, match=f"the clip has {frames} frames, .* cut it to {advised} frames"
    ):
        fit_to_model((frames, 32, 32), (16, 16), 4, None, most)
    assert fit_to_model((advised, 32, 32), (16, 16), 4, None, most).model == (advised, 32, 32)


@pytest.mark.parametrize(
    "source, model, said",
    [
        ((9, 96, 96), (9, 96, 96), "edited at its own size 96x96; 9 frames"),
        ((81, 1080, 1920), (81, 480, 832), "edited at 832x480, enlarged to 1920x1080; 81 frames"),
        (
            (6, 45, 75),
            (9, 48, 80),
            "edited at 80x48, reduced to 75x45; 6 frames, for the edit 9 by repeating the last",
        ),
        ((9, 90, 96), (9, 96, 80), "edited at 80x96, scaled to 96x90; 9 frames"),
        (
            (8, 96, 96),
            (9, 96, 96),
            "edited at its own size 96x96; 8 frames, for the edit 9 by repeating the last",
        ),
    ],
)
def test_a_fit_says_what_becomes_of_the_detail(source, model, said):
    assert str(Fit(source, model)) == said


def test_with_the_source_put_back_its_detail_is_lost_inside_the_mask_alone():
    fit = Fit((81, 1080, 1920), (81, 480, 832))
    inside = "enlarged to 1920x1080 inside the mask; outside it the source's own pixels"
    assert fit.sentence(composited=True) == f"edited at 832x480, {inside}; 81 frames"
    kept = Fit((9, 96, 96), (9, 96, 96))
    assert kept.sentence(composited=True) == str(kept)


def test_a_mask_scaled_to_its_own_size_is_itself():
    mask = noisy(2)[..., 0] > 128
    assert torch.equal(scale_mask(mask, (48, 64)), mask)
