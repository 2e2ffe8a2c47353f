"""Windowed variance of the clean prediction: does it still move? (KV-Lock, hallucination metric)

From arXiv 2406.09358: predictions of in-support samples settle, hallucinated ones keep moving.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kvlock.core.config import Signal
from kvlock.core.types import Measured


def measure(
    signal: Signal,
    predictions: tuple[Tensor, ...],
    foreground: Tensor,
    sigmas: Sequence[float],
    patch_size: tuple[int, int, int],
) -> Measured | None:
    """What the signal says after the last W predictions, [B, C, F, H, W] each; None before two.

    foreground: bool [B, F, H, W]. sigmas: the noise levels up to that of the step to come.
    """
    region = foreground if signal.detection == "local" else torch.ones_like(foreground)
    variance = windowed_variance(predictions, region)
    if variance is None or signal.calibration is None:
        return None if variance is None else Measured(variance)
    levels = sigmas[-len(predictions) - 1 :]
    return signal.calibration.measure(variance, predictions, region, levels, patch_size)


def windowed_variance(predictions: tuple[Tensor, ...], region: Tensor) -> Tensor | None:
    """Unbiased, element by element, then the mean over the region, per clip: [B].

    predictions: clean latents [B, C, F, H, W] each; region: bool [B, F, H, W].
    None with fewer than two predictions.
    """
    if len(predictions) < 2:
        return None
    variance = elementwise_variance(predictions)
    inside = region[:, None].to(variance.dtype)
    channels = variance.shape[1]
    return (variance * inside).sum(dim=(1, 2, 3, 4)) / (inside.sum(dim=(1, 2, 3, 4)) * channels)


def elementwise_variance(predictions: tuple[Tensor, ...]) -> Tensor:
    """Unbiased variance over two predictions or more, [B, C, F, H, W]."""
    window = torch.stack(predictions).float()  # its `var` takes ten times as long on a CPU
    return (window - window.mean(dim=0)).square_().sum(dim=0) / (len(window) - 1)
