"""Warp error on a pan whose motion is known, against a loop over pixels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from kvlock.metrics.flow import visible, warp_errors


def _pan(frames=5, size=48, speed=2):
    """A smooth texture that moves `speed` pixels to the left a frame."""
    noise = np.random.default_rng(0).uniform(0, 255, (size, size + speed * frames, 3))
    wide = gaussian_filter(noise, (2, 2, 0))
    wide = np.interp(wide, (wide.min(), wide.max()), (0, 255))
    shown = [wide[:, t * speed : t * speed + size] for t in range(frames)]
    return torch.from_numpy(np.stack(shown).astype(np.uint8))


def test_a_pan_has_none_and_noise_has_twice_its_power():
    pan = _pan()
    own, same = warp_errors(pan, pan)
    assert own == same < 1e-4
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 10, pan.shape))
    noisy = (pan + noise).clamp(0, 255).round().to(torch.uint8)
    found, still_own = warp_errors(pan, noisy)
    assert still_own == own
    assert found == pytest.approx(2 * (10 / 255) ** 2, rel=0.1)  # nothing blurs: whole pixels
    jumped = pan.clone()
    jumped[2:] = jumped[2:].roll(10, dims=1)
    assert warp_errors(pan, jumped)[0] > 100 * own


def test_the_error_is_the_mean_over_pixels_that_the_known_flow_reaches():
    pan = _pan(frames=2)
    values = np.random.default_rng(2).integers(0, 256, pan.shape).astype(np.uint8)
    slow = [
        ((values[0, y, x] / 255 - values[1, y, x - 2] / 255) ** 2).mean()
        for y in range(48)
        for x in range(2, 48)
    ]
    found = warp_errors(pan, torch.from_numpy(values))[0]
    assert found == pytest.approx(np.mean(slow), rel=0.02)


def test_what_leaves_or_does_not_return_is_not_visible():
    forward = np.zeros((16, 16, 2), np.float32)
    backward = np.zeros_like(forward)
    assert visible(forward, backward).all()
    forward[..., 0], backward[..., 0] = 3, -3
    seen = visible(forward, backward)
    assert not seen[:, 13:].any() and seen[:, :13].all()
    backward[5, 8] = (1, 0)  # what (5, 5) is covered by comes from elsewhere
    seen = visible(forward, backward)
    assert not seen[5, 5] and seen[5, 4] and seen[4, 5]


def test_one_frame_or_a_tiny_one_cannot_be_measured():
    pan = _pan()
    assert np.isnan(warp_errors(pan[:1], pan[:1])).all()
    for height, width in ((8, 8), (12, 48), (4, 40), (48, 15)):
        small = pan[:, :height, :width]
        assert np.isnan(warp_errors(small, small)).all()
    assert not np.isnan(warp_errors(pan[:, :16], pan[:, :16])).any()
