"""The background against the source, on uint8 tensors in memory, never on an encoded file."""

from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

SSIM_WINDOW = 11


def psnr_background(source: np.ndarray, edited: np.ndarray, mask: np.ndarray) -> float:
    """Squared error averaged over background pixels only, per frame, in dB; the mean over frames.

    source, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W], True where the edit may happen. Frames without
    background do not count; an exact frame counts 100 dB. NaN where no frame has background.
    """
    values = []
    for before, after, inside in zip(source, edited, mask):
        if not inside.all():
            mse = np.mean((before[~inside].astype(np.float64) - after[~inside]) ** 2)
            values.append(min(100.0, 10 * np.log10(255**2 / mse)) if mse else 100.0)
    return float(np.mean(values)) if values else float("nan")


def ssim_background(source: np.ndarray, edited: np.ndarray, mask: np.ndarray) -> float:
    """The SSIM map (Gaussian window, sigma 1.5) averaged over background pixels, per frame; the mean over frames.

    NaN where no frame has background, or a side is shorter than the window's 11 pixels.
    """
    if min(mask.shape[1:]) < SSIM_WINDOW:
        return float("nan")
    values = []
    for before, after, inside in zip(source, edited, mask):
        if not inside.all():
            settings: dict[str, Any] = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
            maps: Any = structural_similarity(before, after, channel_axis=-1, data_range=255, full=True, **settings)
            similarity = maps[1]
            values.append(similarity[~inside].mean())
    return float(np.mean(values)) if values else float("nan")
