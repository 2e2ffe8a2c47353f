"""The edit against its true answer, where that is known; uint8 [F, H, W, 3] in memory."""

from torch import Tensor

from kvlock.metrics.background import psnr_background, ssim_background


def psnr_inside(truth: Tensor, edited: Tensor, mask: Tensor) -> float:
    """Squared error averaged over the mask's pixels only, per frame, in dB; the mean over frames.

    truth, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W].
    """
    return psnr_background(truth, edited, ~mask)


def ssim_inside(truth: Tensor, edited: Tensor, mask: Tensor) -> float:
    """The SSIM map averaged over the mask's pixels, per frame; the mean over frames.

    truth, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W].
    """
    return ssim_background(truth, edited, ~mask)
