"""The edit against its true answer, where that is known; uint8 [F, H, W, 3] in memory."""

import numpy as np

from kvlock.metrics.background import psnr_background, ssim_background


def psnr_inside(truth: np.ndarray, edited: np.ndarray, mask: np.ndarray) -> float:
    """Squared error averaged over the mask's pixels only, per frame, in dB; the mean over frames."""
    return psnr_background(truth, edited, ~mask)


def ssim_inside(truth: np.ndarray, edited: np.ndarray, mask: np.ndarray) -> float:
    """The SSIM map averaged over the mask's pixels, per frame; the mean over frames."""
    return ssim_background(truth, edited, ~mask)
