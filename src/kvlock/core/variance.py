"""Windowed variance of the clean prediction: does it still move? (KV-Lock, hallucination metric)

From arXiv 2406.09358: predictions of in-support samples settle, hallucinated ones keep moving.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kvlock.contract.types import Measured
from kvlock.core.config import Signal


class Window(NamedTuple):
    """The last W clean predictions, [B, C, F, H, W] each, where they are watched, and their levels.

    region: bool [B, F, H, W]. sigmas: the noise levels of these steps and of the one to come.
    """

    predictions: tuple[Tensor, ...]
    region: Tensor
    sigmas: Sequence[float]


def measure(signal: Signal, window: Window, patch_size: tuple[int, int, int]) -> Measured | None:
    """What the signal says of a window; None before it holds two predictions."""
    variance = windowed_variance(window.predictions, window.region)
    if variance is None or signal.calibration is None:
        return None if variance is None else Measured(variance)
    return signal.calibration.measure(variance, window, patch_size)


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
