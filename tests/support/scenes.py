"""Scenes of the built-in world with their subject's true mask."""

import numpy as np
import torch
from torch import Tensor

from kvlock.shapes.render import render_scene, render_subject
from kvlock.shapes.scene import random_scene


def scene(seed: int, frames: int = 9, side: int = 96) -> tuple[Tensor, Tensor]:
    """A clip uint8 [F, H, W, 3], and where its first shape is, bool [F, H, W]."""
    drawn = random_scene(seed)
    clip = render_scene(drawn, frames, side, side)
    return torch.from_numpy(clip), torch.from_numpy(render_subject(drawn, frames, side, side))


def iou(one: Tensor | np.ndarray, other: Tensor | np.ndarray) -> float:
    """By counting pixels; 1 for two empty masks."""
    one, other = (np.asarray(m, bool) for m in (one, other))
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
