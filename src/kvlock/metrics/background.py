"""The background against the source, on uint8 tensors in memory, never on an encoded file."""

from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter
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


def psnr_background_multiplied(source: np.ndarray, edited: np.ndarray, mask: np.ndarray) -> float:
    """Both clips times the background, squared error over the whole frame, per frame; the mean over frames.

    FiVE-Bench's reading, after PnPInversion: higher than `psnr_background` by -10 log10 of the background's share.
    Only for comparison with published tables.
    """
    background = ~mask[..., None]
    return psnr_background(source * background, edited * background, np.zeros_like(mask))


def psnr_frame(source: np.ndarray, edited: np.ndarray) -> float:
    """The whole frame, edit and all, per frame; the mean over frames."""
    return psnr_background(source, edited, np.zeros(source.shape[:3], dtype=bool))


def psnr_ring(source: np.ndarray, edited: np.ndarray, mask: np.ndarray, width: int = 16) -> float:
    """`psnr_background` of the ring of `width` pixels around the mask alone, where seams are. NaN without a ring."""
    near = maximum_filter(mask, size=(1, 2 * width + 1, 2 * width + 1), mode="constant")
    return psnr_background(source, edited, ~(near & ~mask))


def flicker_background(source: np.ndarray, edited: np.ndarray, mask: np.ndarray) -> float:
    """How much more (or less) the background changes from frame to frame than the source's own, in grey levels.

    The root mean square of (edited[t] - edited[t-1]) - (source[t] - source[t-1]) over pixels that are background in
    both frames; 0 is best. A constant error does not flicker. NaN for one frame, or without such pixels.
    """
    still = ~(mask[1:] | mask[:-1])
    if not still.any():
        return float("nan")
    moves = [np.diff(clip.astype(np.float64), axis=0) for clip in (source, edited)]
    return float(np.sqrt(((moves[1] - moves[0])[still] ** 2).mean()))
