"""Keyed masks carried through clips whose truth is known."""

import numpy as np
import pytest
import torch

from kvlock.masks.propagate import TRUSTED, _telling_grey, propagate
from kvlock.media.mask_files import read_mask
from kvlock.media.video import read_video
from support.clips import REAL_CLIPS
from support.scenes import iou, scene


def ious(found, truth) -> np.ndarray:
    return np.array([iou(a, b) for a, b in zip(found, truth)])


@pytest.mark.parametrize("seed", [10000, 10013, 10024])  # the last two as light as what is behind
@pytest.mark.parametrize("frames", [5, 9])
def test_one_painted_frame_is_carried_through(seed, frames):
    video, truth = scene(seed, frames)
    carried = propagate(video, {0: truth[0]})
    assert carried.masks.shape == truth.shape and carried.masks.dtype == torch.bool
    assert torch.equal(carried.masks[0], truth[0]) and carried.confidence[0] == 1
    found = ious(carried.masks, truth)
    assert found.mean() > 0.85 and found.min() > 0.7
    assert (carried.confidence >= TRUSTED).all()


def test_a_key_in_the_middle_or_at_the_end_reaches_the_beginning():
    video, truth = scene(10000)
    for key in (4, 8):
        carried = propagate(video, {key: truth[key]})
        assert torch.equal(carried.masks[key], truth[key])
        assert ious(carried.masks, truth).min() > 0.75


def test_backward_is_forward_of_the_clip_played_backward():
    video, truth = scene(10000)
    ahead = propagate(video, {0: truth[0]})
    back = propagate(video.flip(0), {8: truth[0]})
    assert torch.equal(back.masks.flip(0), ahead.masks)
    assert torch.equal(back.confidence.flip(0), ahead.confidence)


def test_a_second_key_mends_what_was_lost_and_the_lost_frames_are_named():
    video, truth = scene(10000, 13)
    video, truth = video.clone(), truth.clone()
    video[5:7], truth[5:7] = 30, False  # the camera is covered for two frames
    alone = propagate(video, {0: truth[0]})
    lost = ious(alone.masks, truth) < 0.7
    assert lost[7:].all()
    assert (alone.confidence[torch.from_numpy(lost)] < TRUSTED).all()
    both = propagate(video, {0: truth[0], 12: truth[12]})
    assert ious(both.masks[7:], truth[7:]).min() > 0.7
    assert (both.confidence[7:] >= TRUSTED).all()


def test_between_two_keys_the_outline_is_between_both():
    video, truth = scene(10000)
    keys = {0: truth[0], 8: truth[8]}
    both = propagate(video, keys)
    one, other = (propagate(video, {t: truth[t]}) for t in keys)
    assert torch.equal(both.masks[0], truth[0]) and torch.equal(both.masks[8], truth[8])
    assert both.confidence[0] == both.confidence[8] == 1
    common = one.masks & other.masks
    assert both.masks[common].all()
    assert not (both.masks & ~(one.masks | other.masks)).any()


def test_the_grey_tells_a_thing_as_light_as_its_surroundings():
    before = np.full((32, 32, 3), (100, 100, 100), np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[10:20, 10:20] = True
    before[mask] = (180, 62, 85)  # the same luminance
    luminance = before[10:20, 10:20] @ [0.299, 0.587, 0.114]
    assert abs(luminance.mean() - 100) < 1
    grey, _ = _telling_grey(before, before, mask)
    assert abs(int(grey[15, 15]) - int(grey[2, 2])) > 200


def test_large_clips_are_carried_at_less_and_come_back_at_their_own_size():
    video, truth = scene(10001, 3, 400)
    carried = propagate(video, {0: truth[0]})
    assert carried.masks.shape == truth.shape
    assert ious(carried.masks, truth).min() > 0.9


def test_a_tiny_thing_is_lost_with_confidence_zero():
    video, _ = scene(10000, 3)
    speck = torch.zeros(96, 96, dtype=torch.bool)
    speck[4:6, 4:6] = True
    carried = propagate(video, {0: speck})
    assert torch.equal(carried.masks[0], speck) and (carried.confidence[1:] == 0).all()


@pytest.mark.parametrize(
    "keys, why",
    [
        ({}, "no frame has a mask"),
        ({3: torch.ones(96, 96, dtype=torch.bool)}, "frame 3 is not in the clip; expected 0 to 2"),
        ({0: torch.ones(96, 90, dtype=torch.bool)}, "mask of frame 0 is 90x96, the clip 96x96"),
        ({1: torch.zeros(96, 96, dtype=torch.bool)}, "mask of frame 1 is empty"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys, why):
    with pytest.raises(ValueError, match=why):
        propagate(scene(0, 3)[0], keys)


def test_a_clip_too_small_for_the_flow_is_refused():
    video = torch.zeros(2, 12, 40, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="the clip is 40x12; expected 16 px or more"):
        propagate(video, {0: torch.ones(12, 40, dtype=torch.bool)})


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the real clips are not in the repository")
def test_a_real_thing_is_followed_behind_a_hand():
    video = read_video(REAL_CLIPS / "editctrl_03_video.mp4", 99).frames
    truth = read_mask(REAL_CLIPS / "editctrl_03_mask.mp4", *video.shape[:3]).mask
    carried = propagate(video[:13], {0: truth[0]})
    assert ious(carried.masks, truth[:13]).min() > 0.93
    assert (carried.confidence >= TRUSTED).all()
