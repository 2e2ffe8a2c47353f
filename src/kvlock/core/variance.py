"""Windowed variance of the denoised prediction: does the model still change its mind? (KV-Lock, hallucination metric)

The idea comes from arXiv 2406.09358: predictions of in-support samples settle, hallucinated ones keep moving.
"""

import torch
from torch import Tensor


def windowed_variance(predictions: tuple[Tensor, ...], region: Tensor) -> Tensor | None:
    """Unbiased variance over the predictions, element by element, then the mean over the region, per clip: [B].

    predictions: the last W denoised latents, each [B, C, F, H, W]. region: bool [B, F, H, W].
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
