import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from kvlock.metrics.background import (
    blurred_by_torch,
    flicker_background,
    psnr_background,
    psnr_background_multiplied,
    psnr_frame,
    psnr_ring,
    ssim_background,
)
from kvlock.metrics.foreground import psnr_inside, ssim_inside

GENERATOR = np.random.default_rng(0)
SIZE = (3, 14, 18)
SOURCE = torch.from_numpy(GENERATOR.integers(0, 256, (*SIZE, 3), np.uint8))
NOISE = torch.from_numpy(GENERATOR.integers(-20, 20, SOURCE.shape))
EDITED = (SOURCE + NOISE).clamp(0, 255).to(torch.uint8)
MASK = torch.zeros(SIZE, dtype=torch.bool)
MASK[0, 2:9, 3:11] = MASK[1, :, :9] = True
MASK[2] = True  # no background in the last frame


def slow_psnr(source, edited, mask) -> float:
    frames = []
    for f in range(len(source)):
        total = count = 0
        for y in range(source.shape[1]):
            for x in range(source.shape[2]):
                for c in range(3):
                    if not mask[f, y, x]:
                        total += (int(source[f, y, x, c]) - int(edited[f, y, x, c])) ** 2
                        count += 1
        if count:
            frames.append(
                min(100, 20 * math.log10(255 / math.sqrt(total / count))) if total else 100
            )
    return sum(frames) / len(frames)


def slow_ssim(source, edited, mask) -> float:
    """Wang et al. 2004: an 11x11 Gaussian window of sigma 1.5 around every background pixel."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    small, large = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    frames = []
    for before, after, inside in zip(source.numpy(), edited.numpy(), mask.numpy()):
        values = []
        for y, x in np.argwhere(~inside):
            for c in range(3):
                a, b = (
                    np.pad(p[..., c].astype(float), 5, mode="symmetric")[y : y + 11, x : x + 11]
                    for p in (before, after)
                )
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (
                    (window * a * a).sum() - mean_a**2,
                    (window * b * b).sum() - mean_b**2,
                )
                covariance = (window * a * b).sum() - mean_a * mean_b
                values.append(
                    (2 * mean_a * mean_b + small)
                    * (2 * covariance + large)
                    / ((mean_a**2 + mean_b**2 + small) * (var_a + var_b + large))
                )
        if values:
            frames.append(np.mean(values))
    return float(np.mean(frames))


def test_psnr_is_that_of_a_slow_loop():
    slow = slow_psnr(SOURCE, EDITED, MASK)
    assert psnr_background(SOURCE, EDITED, MASK) == pytest.approx(slow, rel=1e-10)


def test_ssim_is_that_of_a_slow_loop():
    slow = slow_ssim(SOURCE, EDITED, MASK)
    assert ssim_background(SOURCE, EDITED, MASK) == pytest.approx(slow, rel=1e-8)


def test_ssim_of_a_whole_frame_is_that_of_skimage():
    source, edited = (x.repeat_interleave(4, 1).repeat_interleave(4, 2) for x in (SOURCE, EDITED))
    settings = dict(gaussian_weights=True, use_sample_covariance=False, channel_axis=-1)
    pairs = zip(source.numpy(), edited.numpy())
    maps = [structural_similarity(a, b, full=True, data_range=255, **settings)[1] for a, b in pairs]
    found = ssim_background(source, edited, torch.zeros(3, 56, 72, dtype=torch.bool))
    assert found == pytest.approx(np.mean(maps), rel=1e-12)


def test_an_exact_background_counts_100_db_whatever_the_inside_is():
    edited = torch.where(MASK[..., None], 255 - SOURCE, SOURCE)
    assert psnr_background(SOURCE, edited, MASK) == 100
    assert psnr_background(SOURCE, edited, ~MASK) < 20
    assert psnr_background(SOURCE, SOURCE, MASK) == 100
    assert ssim_background(SOURCE, SOURCE, MASK) == pytest.approx(1, abs=1e-12)


def test_a_known_error_in_one_frame_of_two():
    source = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    edited = source.clone()
    edited[0] = 51  # a fifth of the range: 20 log10(5) dB
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    expected = (20 * math.log10(5) + 100) / 2
    assert psnr_background(source, edited, mask) == pytest.approx(expected)
    assert psnr_background(edited, source, mask) == psnr_background(source, edited, mask)


def test_the_largest_error_of_a_large_frame_is_0_db():
    """Summed as whole numbers, beyond what 32 bits hold."""
    source = torch.zeros(1, 300, 400, 3, dtype=torch.uint8)
    mask = torch.zeros(1, 300, 400, dtype=torch.bool)
    assert psnr_background(source, ~source, mask) == 0


def test_no_background_is_no_number():
    mask = torch.ones(SIZE, dtype=torch.bool)
    assert math.isnan(psnr_background(SOURCE, EDITED, mask))
    assert math.isnan(ssim_background(SOURCE, EDITED, mask))


def test_the_readings_of_psnr_differ_by_the_share_of_background():
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, :7] = True  # half of every frame
    multiplied = psnr_background_multiplied(SOURCE, EDITED, mask)
    share = 10 * math.log10(2)
    assert multiplied == pytest.approx(psnr_background(SOURCE, EDITED, mask) + share)
    nothing = torch.zeros_like(mask)
    assert psnr_frame(SOURCE, EDITED) == pytest.approx(slow_psnr(SOURCE, EDITED, nothing))
    assert psnr_inside(SOURCE, EDITED, mask) == pytest.approx(slow_psnr(SOURCE, EDITED, ~mask))
    assert ssim_inside(SOURCE, EDITED, mask) == pytest.approx(slow_ssim(SOURCE, EDITED, ~mask))


def test_the_ring_is_what_lies_near_the_mask():
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, 6, 8] = mask[0, 13, 17] = True  # one at a corner
    outside_ring = torch.ones(SIZE, dtype=torch.bool)
    outside_ring[:, 4:9, 6:11] = outside_ring[0, 11:, 15:] = False
    outside_ring[:, 6, 8] = outside_ring[0, 13, 17] = True
    slow = slow_psnr(SOURCE, EDITED, outside_ring)
    assert psnr_ring(SOURCE, EDITED, mask, width=2) == pytest.approx(slow)
    assert math.isnan(psnr_ring(SOURCE, EDITED, torch.ones_like(mask)))


def test_a_constant_error_does_not_flicker_and_a_moving_one_does():
    still = torch.zeros(SIZE, dtype=torch.bool)
    still[:, :3] = True
    source = torch.full((*SIZE, 3), 100, dtype=torch.uint8)
    brighter, blinking, inside = source + 9, source.clone(), source.clone()
    blinking[1] += 4
    assert flicker_background(source, brighter, still) == 0
    assert flicker_background(source, blinking, still) == pytest.approx(4)
    inside[1, :3] += 50
    assert flicker_background(source, inside, still) == 0
    assert math.isnan(flicker_background(SOURCE, EDITED, torch.ones_like(MASK)))


def test_flicker_is_that_of_a_slow_loop():
    mask = MASK.clone()
    mask[2] = mask[0]
    squares = []
    for t in (1, 2):
        for y, x, c in np.ndindex(*SIZE[1:], 3):
            if not mask[t, y, x] and not mask[t - 1, y, x]:
                edit, own = (int(v[t, y, x, c]) - int(v[t - 1, y, x, c]) for v in (EDITED, SOURCE))
                squares.append((edit - own) ** 2)
    expected = math.sqrt(sum(squares) / len(squares))
    assert flicker_background(SOURCE, EDITED, mask) == pytest.approx(expected, rel=1e-12)


def test_both_blurs_of_ssim_are_one():
    from kvlock.metrics import background

    maps = torch.from_numpy(np.random.default_rng(3).uniform(0, 255, (19, 27)))
    torch.testing.assert_close(
        blurred_by_torch(maps), background._blurred(maps), atol=1e-11, rtol=0
    )
