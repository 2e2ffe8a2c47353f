"""A clip to the size that a model needs, and the edit back to the clip's own."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MIN_FRAMES = 2


@dataclass(frozen=True)
class Fit:
    """What was done to a clip: from (frames, height, width) to (frames, height, width)."""

    source: tuple[int, int, int]
    model: tuple[int, int, int]

    def __str__(self) -> str:
        (f, h, w), (mf, mh, mw) = self.source, self.model
        scaled = f"scaled {w}x{h} -> {mw}x{mh}" if (h, w) != (mh, mw) else f"size {w}x{h} kept"
        padded = f"last frame repeated {mf - f} times ({f} -> {mf})" if mf != f else f"{f} frames kept"
        undone = "; both undone after the edit" if self.source != self.model else ""
        return f"{scaled}, {padded}{undone}"


def fit_to_model(
    source: tuple[int, int, int], multiple: tuple[int, int], stride: int, area: int | None, max_frames: int | None
) -> Fit:
    """The model's size nearest to a clip's (frames, height, width).

    Sides are multiples of `multiple`; frames are `stride`*n + 1, at least as many as the clip has. With `area` the
    clip is scaled to about that many pixels, its aspect kept to within the rounding. Raises ValueError for a clip
    that is too short or too long.
    """
    frames, height, width = source
    if frames < MIN_FRAMES:
        raise ValueError(f"the clip has {frames} frame; expected at least {MIN_FRAMES}")
    padded = math.ceil((frames - 1) / stride) * stride + 1
    if max_frames and padded > max_frames:
        most = (max_frames - 1) // stride * stride + 1
        raise ValueError(f"the clip has {frames} frames, the model takes {most}; cut it to {most} frames")
    scale = math.sqrt(area / (height * width)) if area else 1.0
    fitted_height, fitted_width = (max(m, round(side * scale / m) * m) for side, m in zip((height, width), multiple))
    return Fit(source, (padded, fitted_height, fitted_width))


def fit_video(video: np.ndarray, fit: Fit) -> Tensor:
    """uint8 [F, H, W, 3] -> uint8 of the model's size."""
    return _pad(_resize(torch.from_numpy(video), fit.model[1:]), fit.model[0])


def fit_mask(mask: np.ndarray, fit: Fit) -> Tensor:
    """bool [F, H, W] -> bool of the model's size; any edited pixel frees the pixels it falls on."""
    scaled = F.adaptive_max_pool2d(torch.from_numpy(mask).float(), fit.model[1:]) > 0
    return _pad(scaled, fit.model[0])


def unfit_video(video: Tensor, fit: Fit) -> np.ndarray:
    """The edit, uint8 at the model's size, back at the clip's."""
    return _resize(video[: fit.source[0]], fit.source[1:]).numpy()


def _resize(video: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(video.shape[1:3]) == tuple(size):
        return video
    frames = [
        F.interpolate(f.permute(2, 0, 1)[None].float(), size=size, mode="bicubic", antialias=True)[0] for f in video
    ]
    return torch.stack(frames).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _pad(frames: Tensor, count: int) -> Tensor:
    return torch.cat([frames, frames[-1:].expand(count - len(frames), *frames.shape[1:])])
