import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from kvlock.metrics.background import (
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
SOURCE = GENERATOR.integers(0, 256, (*SIZE, 3), np.uint8)
EDITED = (SOURCE + GENERATOR.integers(-20, 20, SOURCE.shape)).clip(0, 255).astype(np.uint8)
MASK = np.zeros(SIZE, bool)
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
            frames.append(min(100, 20 * math.log10(255 / math.sqrt(total / count))) if total else 100)
    return sum(frames) / len(frames)


def slow_ssim(source, edited, mask) -> float:
    """Wang et al. 2004: an 11x11 Gaussian window of sigma 1.5 around every background pixel."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    small, large = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    frames = []
    for before, after, inside in zip(source, edited, mask):
        values = []
        for y, x in np.argwhere(~inside):
            for c in range(3):
                a, b = (
                    np.pad(p[..., c].astype(float), 5, mode="symmetric")[y : y + 11, x : x + 11]
                    for p in (before, after)
                )
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
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
    assert psnr_background(SOURCE, EDITED, MASK) == pytest.approx(slow_psnr(SOURCE, EDITED, MASK), rel=1e-10)


def test_ssim_is_that_of_a_slow_loop():
    assert ssim_background(SOURCE, EDITED, MASK) == pytest.approx(slow_ssim(SOURCE, EDITED, MASK), rel=1e-8)


def test_ssim_of_a_whole_frame_is_that_of_skimage():
    source, edited = (np.kron(x, np.ones((1, 4, 4, 1), np.uint8)) for x in (SOURCE, EDITED))
    settings = dict(gaussian_weights=True, use_sample_covariance=False, channel_axis=-1, data_range=255)
    _, maps = zip(*(structural_similarity(a, b, full=True, **settings) for a, b in zip(source, edited)))
    assert ssim_background(source, edited, np.zeros((3, 56, 72), bool)) == pytest.approx(np.mean(maps), rel=1e-12)


def test_an_exact_background_counts_100_db_whatever_the_inside_is():
    edited = np.where(MASK[..., None], 255 - SOURCE, SOURCE)
    assert psnr_background(SOURCE, edited, MASK) == 100
    assert psnr_background(SOURCE, edited, ~MASK) < 20
    assert psnr_background(SOURCE, SOURCE, MASK) == 100
    assert ssim_background(SOURCE, SOURCE, MASK) == pytest.approx(1, abs=1e-12)


def test_a_known_error_in_one_frame_of_two():
    source = np.zeros((2, 16, 16, 3), np.uint8)
    edited = source.copy()
    edited[0] = 51  # a fifth of the range: 20 log10(5) dB
    mask = np.zeros((2, 16, 16), bool)
    assert psnr_background(source, edited, mask) == pytest.approx((20 * math.log10(5) + 100) / 2)
    assert psnr_background(edited, source, mask) == psnr_background(source, edited, mask)


def test_no_background_is_no_number():
    mask = np.ones(SIZE, bool)
    assert math.isnan(psnr_background(SOURCE, EDITED, mask))
    assert math.isnan(ssim_background(SOURCE, EDITED, mask))


def test_the_readings_of_psnr_differ_by_the_share_of_background():
    mask = np.zeros(SIZE, bool)
    mask[:, :7] = True  # half of every frame
    share = 10 * math.log10(2)
    assert psnr_background_multiplied(SOURCE, EDITED, mask) == pytest.approx(
        psnr_background(SOURCE, EDITED, mask) + share
    )
    assert psnr_frame(SOURCE, EDITED) == pytest.approx(slow_psnr(SOURCE, EDITED, np.zeros(SIZE, bool)))
    assert psnr_inside(SOURCE, EDITED, mask) == pytest.approx(slow_psnr(SOURCE, EDITED, ~mask))
    assert ssim_inside(SOURCE, EDITED, mask) == pytest.approx(slow_ssim(SOURCE, EDITED, ~mask))


def test_the_ring_is_what_lies_near_the_mask():
    mask = np.zeros(SIZE, bool)
    mask[:, 6, 8] = True
    outside_ring = np.ones(SIZE, bool)
    outside_ring[:, 4:9, 6:11] = False
    outside_ring[:, 6, 8] = True
    assert psnr_ring(SOURCE, EDITED, mask, width=2) == pytest.approx(slow_psnr(SOURCE, EDITED, outside_ring))
    assert math.isnan(psnr_ring(SOURCE, EDITED, np.ones(SIZE, bool)))


def test_a_constant_error_does_not_flicker_and_a_moving_one_does():
    still = np.zeros(SIZE, bool)
    still[:, :3] = True
    source = np.full((*SIZE, 3), 100, np.uint8)
    brighter, blinking = source + np.uint8(9), source.copy()
    blinking[1] += np.uint8(4)
    assert flicker_background(source, brighter, still) == 0
    assert flicker_background(source, blinking, still) == pytest.approx(4)
    inside = source.copy()
    inside[1, :3] += np.uint8(50)
    assert flicker_background(source, inside, still) == 0
    assert math.isnan(flicker_background(SOURCE, EDITED, np.ones(SIZE, bool)))
