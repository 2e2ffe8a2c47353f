"""Warp error on a pan whose motion is known, against a loop over pixels."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from kvlock.metrics.flow import visible, warp_errors


def _pan(frames=5, size=48, speed=2):
    """A smooth texture that moves `speed` pixels to the left a frame."""
    wide = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (size, size + speed * frames, 3)), (2, 2, 0))
    wide = np.interp(wide, (wide.min(), wide.max()), (0, 255))
    return np.stack([wide[:, t * speed : t * speed + size] for t in range(frames)]).astype(np.uint8)


def test_a_pan_has_none_and_noise_has_twice_its_power():
    pan = _pan()
    own, same = warp_errors(pan, pan)
    assert own == same < 1e-4
    noise = np.random.default_rng(1).normal(0, 10, pan.shape)
    noisy = np.clip(pan.astype(float) + noise, 0, 255).round().astype(np.uint8)
    found, still_own = warp_errors(pan, noisy)
    assert still_own == own
    assert found == pytest.approx(2 * (10 / 255) ** 2, rel=0.1)  # whole pixels: nothing is blurred by the warp
    jumped = pan.copy()
    jumped[2:] = np.roll(jumped[2:], 10, axis=1)
    assert warp_errors(pan, jumped)[0] > 100 * own


def test_the_error_is_the_mean_over_pixels_that_the_known_flow_reaches():
    pan = _pan(frames=2)
    edited = np.random.default_rng(2).integers(0, 256, pan.shape).astype(np.uint8)
    slow = [((edited[0, y, x] / 255 - edited[1, y, x - 2] / 255) ** 2).mean() for y in range(48) for x in range(2, 48)]
    assert warp_errors(pan, edited)[0] == pytest.approx(np.mean(slow), rel=0.02)


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
