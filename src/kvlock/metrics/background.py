"""The background against the source, on uint8 tensors in memory, never on an encoded file.

Squared errors are summed as whole numbers, so that PSNR and flicker are the same on every device.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


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
    values = []
    for before, after, inside in zip(source, edited, mask):
        if not inside.all():
            values.append(float(_ssim_map(before, after)[~inside].mean()))
    return _mean(values)


def _ssim_map(before: Tensor, after: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) at every pixel and channel of two frames, float64 [H, W, 3]."""
    channels = zip(before.unbind(dim=-1), after.unbind(dim=-1))
    return torch.stack([_ssim_of_channel(x.double(), y.double()) for x, y in channels], dim=-1)


def _ssim_of_channel(x: Tensor, y: Tensor) -> Tensor:
    mean_x, mean_y, xx, yy, xy = map(_blurred, (x, y, x * x, y * y, x * y))
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


def _blurred(plane: Tensor) -> Tensor:
    """Gaussian, sigma 1.5, over 11 pixels; beyond the edge the picture is mirrored. [H, W]."""
    if plane.device.type != "cpu":
        return blurred_by_torch(plane)
    window, mirrored = (SSIM_WINDOW, SSIM_WINDOW), cv2.BORDER_REFLECT
    return torch.from_numpy(
        cv2.GaussianBlur(plane.numpy(), window, SSIM_SIGMA, borderType=mirrored)
    )


def blurred_by_torch(plane: Tensor) -> Tensor:
    """The same on any device; on a CPU ten times slower."""
    reach = SSIM_WINDOW // 2
    offsets = torch.arange(-reach, reach + 1, device=plane.device, dtype=plane.dtype)
    weights = (-0.5 * (offsets / SSIM_SIGMA) ** 2).exp()
    kernel = (weights / weights.sum()).view(1, 1, 1, -1)
    for _ in range(2):  # rows, then columns
        edges = plane[:, :reach].flip(-1), plane, plane[:, -reach:].flip(-1)
        plane = F.conv2d(torch.cat(edges, dim=-1)[None, None], kernel)[0, 0].T
    return plane


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
