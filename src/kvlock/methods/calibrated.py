"""A variance without units, and where it is: what the `calibrated` schedules look at (ours, not the paper's).

Per variance of the noise levels it was seen over, it no longer depends on how many steps the walk takes; in multiples
of what is usual for the model at that noise level, 1 is ordinary.
"""

import math
import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kvlock.contract.types import Measured
from kvlock.core.variance import Window, elementwise_variance
from kvlock.methods.parts import Usual


def calibrated(
    usual: Usual,
    lock_width: float,
    variance: Tensor,
    window: Window,
    patch_size: tuple[int, int, int],
) -> Measured:
    """The variance [B] and, where `lock_width` is above 0, that around each token, in multiples of
    what is usual."""
    *levels, sigma = window.sigmas
    ordinary = usual_variance(usual, sigma) * path_variance(levels)
    if not lock_width:
        return Measured(variance / ordinary)
    nearby = nearby_variance(window.predictions, window.region, lock_width, patch_size)
    assert nearby
    return Measured(variance / ordinary, nearby[0] / ordinary, nearby[1])


def path_variance(sigmas: Sequence[float]) -> float:
    """Unbiased variance of the noise levels of a window, two or more: how far the walk itself went."""
    return statistics.variance(sigmas)


def usual_variance(usual: Usual, sigma: float) -> float:
    """The variance that is usual at a noise level: log-linear between the table's levels, held beyond its ends.

    Raises ValueError for an empty table.
    """
    if not usual:
        raise ValueError(
            "usual is (); expected the model's calibration, as kvlock calibrate MODEL --suite "
            "CLIPS.jsonl makes it"
        )
    points = sorted(usual)
    for (left, low), (right, high) in zip(points, points[1:]):
        if left <= sigma <= right:
            share = (sigma - left) / (right - left) if right > left else 0.0
            return math.exp((1 - share) * math.log(low) + share * math.log(high))
    return points[0][1] if sigma < points[0][0] else points[-1][1]


def nearby_variance(
    predictions: tuple[Tensor, ...], region: Tensor, width: float, patch_size: tuple[int, int, int]
) -> tuple[Tensor, Tensor] | None:
    """For every token: the variance of the region's latents around it, and how near the region is; [B, L] each.

    predictions: [B, C, F, H, W] each; region: bool [B, F, H, W]. Neighbours in the same frame weigh by a Gaussian of
    `width` latents. Nearness is 1 at a straight edge of the region and falls softly to 0 far from it.
    None with fewer than two predictions.
    """
    if len(predictions) < 2:
        return None
    inside = region.float()
    near = _blur(inside, width)
    variance = _blur(elementwise_variance(predictions).mean(dim=1) * inside, width) / near.clamp(
        min=1e-12
    )
    maps = torch.stack([variance, (2 * near).clamp(max=1)], dim=1)
    variance, nearness = F.avg_pool3d(maps, patch_size).flatten(2).unbind(dim=1)
    return variance, nearness


def _blur(maps: Tensor, width: float) -> Tensor:
    """Gaussian blur of the frames of [B, F, H, W], out to three widths; there is nothing beyond the picture's edge."""
    radius = math.ceil(3 * width)
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    weights = (-0.5 * (offsets / width) ** 2).exp()
    weights = weights / weights.sum()
    frames = maps.flatten(0, 1)[:, None]
    frames = F.conv2d(frames, weights.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(frames, weights.view(1, 1, 1, -1), padding=(0, radius)).view_as(maps)
