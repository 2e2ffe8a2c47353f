"""Real clips with their masks, where they are at hand: there, to a model's size, and back."""

import pytest
import torch
from scipy.ndimage import distance_transform_edt

from kvlock.media.composite import composite
from kvlock.media.fit import fit_mask, fit_to_model, fit_video, unfit_video
from kvlock.media.mask_files import read_mask
from kvlock.media.video import read_video, write_video
from support.clips import REAL_CLIPS

PAIRS = [
    ("vace_test2.mp4", "vace_test2.png", (25, 768, 512)),
    ("editctrl_03_video.mp4", "editctrl_03_mask.mp4", (49, 480, 720)),
]
FRAMES = 5


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the real clips are not in the repository")
@pytest.mark.parametrize("video, mask, size", PAIRS)
def test_a_clip_keeps_every_byte_of_its_background(tmp_path, video, mask, size):
    clip = read_video(REAL_CLIPS / video, 99)
    inside, notes = read_mask(REAL_CLIPS / mask, *size)
    assert clip.frames.shape == (*size, 3) and clip.notes == notes == ()
    source, inside = clip.frames[:FRAMES], inside[:FRAMES]
    fit = fit_to_model((FRAMES, *size[1:]), (16, 16), 4, 96 * 160, None)
    fitted = fit_video(source, fit)
    fitted[fit_mask(inside, fit)] = 0  # the edit
    edited = composite(source, unfit_video(fitted, fit), inside)
    write_video(tmp_path / "edited.mp4", edited, clip, lossless=True)
    written = read_video(tmp_path / "edited.mp4", 99)
    assert torch.equal(written.frames, edited) and written.rate == clip.rate
    for before, after, marked in zip(source, written.frames, inside):
        far = torch.from_numpy(distance_transform_edt(~marked.numpy()) > 8)
        assert torch.equal(before[far], after[far]) and far.any()
        assert not torch.equal(before[marked], after[marked])
