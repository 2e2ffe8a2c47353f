"""A clip to the size that a model needs, and the edit back to the clip's own."""

import math
from dataclasses import dataclass

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
        return self.sentence()

    def sentence(self, composited: bool = False) -> str:
        """One line that says which detail survives.

        `composited`: the source's own pixels are put back outside the mask.
        """
        (frames, height, width), (more, *sides) = self.source, self.model
        own = f"{width}x{height}"
        if sides == [height, width]:
            said = f"edited at its own size {own}"
        else:
            said = f"edited at {sides[1]}x{sides[0]}, {_scaling(sides, [height, width])} to {own}"
            if composited:
                said += " inside the mask; outside it the source's own pixels"
        if more == frames:
            return f"{said}; {frames} frames"
        return f"{said}; {frames} frames, for the edit {more} by repeating the last"


def _scaling(before: list[int], after: list[int]) -> str:
    if all(b <= a for b, a in zip(before, after)):
        return "enlarged"
    return "reduced" if all(b >= a for b, a in zip(before, after)) else "scaled"


def fit_to_model(
    source: tuple[int, int, int],
    multiple: tuple[int, int],
    stride: int,
    area: int | None,
    max_frames: int | None,
) -> Fit:
    """The model's size nearest to a clip's (frames, height, width).

    Sides are multiples of `multiple`; frames are `stride`*n + 1, at least as many as the clip has.
    With `area` the clip is scaled to about that many pixels, its aspect kept to within the
    rounding. Raises ValueError for a clip that is too short or too long.
    """
    frames, height, width = source
    if frames < MIN_FRAMES:
        raise ValueError(f"the clip has {frames} frame; expected at least {MIN_FRAMES}")
    padded = math.ceil((frames - 1) / stride) * stride + 1
    if max_frames and padded > max_frames:
        most = (max_frames - 1) // stride * stride + 1
        raise ValueError(
            f"the clip has {frames} frames, the model takes {most}; cut it to {most} frames"
        )
    scale = math.sqrt(area / (height * width)) if area else 1.0
    sides = [max(m, round(side * scale / m) * m) for side, m in zip((height, width), multiple)]
    return Fit(source, (padded, sides[0], sides[1]))


def fit_video(video: Tensor, fit: Fit) -> Tensor:
    """uint8 [F, H, W, 3] -> uint8 of the model's size."""
    return _pad(_resize(video, fit.model[1:]), fit.model[0])


def fit_mask(mask: Tensor, fit: Fit) -> Tensor:
    """bool [F, H, W] -> bool of the model's size; any edited pixel frees the pixels it falls on."""
    return _pad(scale_mask(mask, fit.model[1:]), fit.model[0])


def unfit_video(video: Tensor, fit: Fit) -> Tensor:
    """The edit, uint8 [F, H, W, 3] at the model's size, back at the clip's."""
    return _resize(video[: fit.source[0]], fit.source[1:])


def scale_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """bool [F, H, W] -> bool [F, *size]: True wherever a marked pixel falls, whole or in part."""
    if tuple(mask.shape[1:]) == tuple(size):
        return mask
    return torch.stack([F.adaptive_max_pool2d(m[None].float(), size)[0] > 0 for m in mask])


def _resize(video: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(video.shape[1:3]) == tuple(size):
        return video
    return torch.stack([_resize_frame(frame, size) for frame in video])


def _resize_frame(frame: Tensor, size: tuple[int, int]) -> Tensor:
    planes = frame.permute(2, 0, 1)[None].float()
    scaled = F.interpolate(planes, size=size, mode="bicubic", antialias=True)[0]
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


def _pad(frames: Tensor, count: int) -> Tensor:
    return torch.cat([frames, frames[-1:].expand(count - len(frames), *frames.shape[1:])])
