"""Masks made larger, smaller, whole, steady or soft: bool [F, H, W] in and out."""

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from kvlock.media.mask_files import dilate_mask

WHITE = 255


@dataclass(frozen=True)
class Refinements:
    """What is done to a mask, in this order; 0 and False are off.

    fill_holes: closed ones in each frame. smooth: frames on each side that an outline is averaged
    over. shrink, grow: pixels. box_mask: each frame's bounding box. invert: the rest instead.
    feather: half-width in pixels of the edges of a soft copy.
    Raises ValueError for a negative number.
    """

    fill_holes: bool = False
    smooth: int = 0
    shrink: int = 0
    grow: int = 0
    box_mask: bool = False
    invert: bool = False
    feather: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            if getattr(self, f.name) < 0:
                value = getattr(self, f.name)
                raise ValueError(f"--{f.name} is {value}; expected 0 or more")


def refine(mask: Tensor, asked: Refinements) -> Tensor:
    """The mask with everything done to it but the feather, which is not black and white."""
    if asked.fill_holes:
        mask = fill_holes(mask)
    if asked.smooth:
        mask = smoothed(mask, asked.smooth)
    mask = dilate_mask(shrunk(mask, asked.shrink), asked.grow)
    if asked.box_mask:
        mask = boxes(mask)
    return ~mask if asked.invert else mask


def shrunk(mask: Tensor, pixels: int) -> Tensor:
    """Smaller by `pixels` on every side but the frame's own."""
    return ~dilate_mask(~mask, pixels)


def fill_holes(mask: Tensor) -> Tensor:
    """Without holes that the mask encloses, frame by frame."""
    filled = [np.asarray(binary_fill_holes(frame), bool) for frame in mask.numpy()]
    return torch.from_numpy(np.stack(filled))


def smoothed(mask: Tensor, frames: int) -> Tensor:
    """Outlines averaged over so many frames on each side, fewer at the clip's ends.

    The average is that of signed distances, of as many frames before as after, so that a thing
    that moves evenly keeps its shape and does not lag. Empty frames stay empty and do not count.
    """
    levels = np.stack([signed_distance(frame) for frame in mask.numpy()])
    marked = mask.flatten(1).any(1).numpy()
    result = np.zeros_like(levels, bool)
    for t in np.flatnonzero(marked):
        reach = min(t, frames, len(levels) - 1 - t)
        near = slice(t - reach, t + reach + 1)
        result[t] = levels[near][marked[near]].mean(axis=0) > 0
    return torch.from_numpy(result)


def boxes(mask: Tensor) -> Tensor:
    """The bounding box of each frame's mask."""
    rows, columns = mask.any(2), mask.any(1)
    return _between(rows)[:, :, None] & _between(columns)[:, None, :]


def feathered(mask: Tensor, pixels: int) -> Tensor:
    """uint8 [F, H, W]: from 0 to 255 over so many pixels on each side of the outline.

    Above 127 is the mask itself.
    """
    if not pixels:
        return mask.byte() * WHITE
    levels = np.stack([signed_distance(frame) for frame in mask.numpy()]) / (2 * pixels) + 0.5
    return torch.from_numpy(np.rint(levels.clip(0, 1) * WHITE).astype(np.uint8))


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Pixels from each pixel's centre to the outline of bool [H, W], positive inside.

    At most the frame's longer side, as where there is no outline.
    """
    mask = np.ascontiguousarray(mask)
    inside, outside = (
        cv2.distanceTransform(m.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for m in (mask, ~mask)
    )
    most = max(mask.shape)
    return np.where(mask, inside - 0.5, 0.5 - outside).clip(-most, most)


def _between(marked: Tensor) -> Tensor:
    """bool [F, N]: from the first to the last that is marked."""
    after, before = marked.cummax(1).values, marked.flip(1).cummax(1).values.flip(1)
    return after & before
