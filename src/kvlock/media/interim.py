"""Tensors in, tensors out, over the functions of media and metrics that take arrays.

It goes when they take tensors themselves: every name here is then imported from where it is
defined.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kvlock.media import composite as _composite
from kvlock.media import fit, mask, pictures, video
from kvlock.metrics import background, flow, foreground


class ReadMask(NamedTuple):
    """mask: bool [F, H, W]; notes: one sentence for each thing that was done to it."""

    mask: Tensor
    notes: tuple[str, ...] = ()


def bridged(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with tensors where it has arrays."""

    @wraps(function)
    def call(*args: Any) -> Any:
        return _to_torch(function(*map(_to_numpy, args)))

    return call


def read_mask(*args: Any) -> ReadMask:
    """As media.mask has it."""
    return ReadMask(bridged(mask.read_mask)(*args))


def unfit_video(clip: Tensor, how: fit.Fit) -> Tensor:
    """As media.fit has it."""
    return torch.from_numpy(fit.unfit_video(clip, how))


def write_video(path: Any, frames: Tensor, like: video.Clip, lossless: bool = False) -> None:
    """As media.video has it."""
    video.write_video(path, frames.numpy(), like, lossless)


read_video = bridged(video.read_video)
composite = bridged(_composite.composite)
contact_sheet = bridged(pictures.contact_sheet)
fit_video = bridged(fit.fit_video)

flicker_background = bridged(background.flicker_background)
psnr_background = bridged(background.psnr_background)
psnr_background_multiplied = bridged(background.psnr_background_multiplied)
psnr_frame = bridged(background.psnr_frame)
psnr_ring = bridged(background.psnr_ring)
ssim_background = bridged(background.ssim_background)
psnr_inside = bridged(foreground.psnr_inside)
ssim_inside = bridged(foreground.ssim_inside)
warp_errors = bridged(flow.warp_errors)


def _to_numpy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    return {k: _to_numpy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, video.Clip):
        return replace(value, frames=_to_torch(value.frames))
    return value
