"""The background against the source, on uint8 tensors in memory, never on an encoded file.

Squared errors are summed as whole numbers, so that PSNR and flicker are the same on every device.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor

SSIM_WINDOW = 11


def psnr_background(source: Tensor, edited: Tensor, mask: Tensor) -> float:
    """Squared error averaged over background pixels only, per frame, in dB; the mean over frames.

    source, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W], True where the edit may happen.
    Frames without background do not count; an exact frame counts 100 dB. NaN where no frame has
    background.
    """
    values = []
    for before, after, inside in zip(source, edited, mask):
        count = int((~inside).sum()) * before.shape[-1]
        if count:
            mse = int(_squares(before.int() - after.int(), ~inside)) / count
            values.append(min(100.0, 10 * np.log10(255**2 / mse)) if mse else 100.0)
    return _mean(values)


def ssim_background(source: Tensor, edited: Tensor, mask: Tensor) -> float:
    """The SSIM map (Gaussian window, sigma 1.5) averaged over background pixels, per frame.

    The mean over frames. NaN where no frame has background, or a side is shorter than the
    window's 11 pixels.
    """
    if min(mask.shape[1:]) < SSIM_WINDOW:
        return float("nan")
    settings: dict[str, Any] = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    settings |= dict(channel_axis=-1, data_range=255, full=True)
    values = []
    for before, after, inside in zip(*(x.cpu().numpy() for x in (source, edited, mask))):
        if not inside.all():
            maps: Any = structural_similarity(before, after, **settings)
            values.append(maps[1][~inside].mean())
    return _mean(values)


def psnr_background_multiplied(source: Tensor, edited: Tensor, mask: Tensor) -> float:
    """Both clips times the background, squared error over the whole frame, per frame.

    FiVE-Bench's reading, after PnPInversion: higher than `psnr_background` by -10 log10 of the
    background's share. Only for comparison with published tables.
    """
    background = ~mask[..., None]
    return psnr_background(source * background, edited * background, torch.zeros_like(mask))


def psnr_frame(source: Tensor, edited: Tensor) -> float:
    """The whole frame, edit and all, per frame; the mean over frames."""
    nothing = torch.zeros(source.shape[:3], dtype=torch.bool, device=source.device)
    return psnr_background(source, edited, nothing)


def psnr_ring(source: Tensor, edited: Tensor, mask: Tensor, width: int = 16) -> float:
    """`psnr_background` of the ring of `width` pixels around the mask alone, where seams are.

    NaN without a ring.
    """
    near = F.max_pool2d(mask.float(), 2 * width + 1, stride=1, padding=width) > 0
    return psnr_background(source, edited, ~(near & ~mask))


def flicker_background(source: Tensor, edited: Tensor, mask: Tensor) -> float:
    """How much more (or less) the background changes between frames than the source's own.

    The root mean square, in grey levels, of (edited[t] - edited[t-1]) - (source[t] - source[t-1])
    over pixels that are background in both frames; 0 is best. A constant error does not flicker.
    NaN for one frame, or without such pixels.
    """
    still = ~(mask[1:] | mask[:-1])
    count = int(still.sum()) * source.shape[-1]
    if not count:
        return float("nan")
    total = 0
    for t, both in enumerate(still):
        moves = [clip[t + 1].int() - clip[t].int() for clip in (source, edited)]
        total += int(_squares(moves[1] - moves[0], both))
    return float(np.sqrt(total / count))


def _squares(difference: Tensor, where: Tensor) -> Tensor:
    """The sum of squares of int [H, W, 3] over the pixels of bool [H, W], as int64."""
    return (difference.square() * where[..., None]).sum()


def _mean(values: list) -> float:
    return float(np.mean(values)) if values else float("nan")
