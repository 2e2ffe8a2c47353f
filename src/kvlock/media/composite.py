"""Source pixels pasted back outside the mask, for a background that is exact."""

import cv2
import numpy as np
import torch
from torch import Tensor


def composite(
    source: Tensor, edited: Tensor, mask: Tensor, dilate: int = 4, feather: int = 4
) -> Tensor:
    """The edit up to `dilate` pixels around the mask, then fading into the source over `feather`.

    source, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W]. Distances are Euclidean, from a
    pixel's centre to that of the nearest pixel of the mask in the same frame. Beyond dilate +
    feather pixels every byte is the source's. Memory beside the result is one frame's.
    Raises ValueError for a negative distance.
    """
    for name, pixels in (("dilate", dilate), ("feather", feather)):
        if pixels < 0:
            raise ValueError(f"{name} is {pixels}; expected 0 or more pixels")
    result = source.clone(memory_format=torch.contiguous_format)
    for shown, after, inside in zip(result, edited, mask):
        pasted = np.ascontiguousarray(after.numpy())
        _paste(shown.numpy(), pasted, inside.numpy(), dilate, feather)
    return result


def _paste(
    shown: np.ndarray, after: np.ndarray, mask: np.ndarray, dilate: int, feather: int
) -> None:
    """Paste a frame of the edit over one of the source, `shown`, in its memory."""
    near = _surroundings(mask, dilate + feather)
    shown, after, mask = shown[near], after[near], mask[near]
    if not mask.any():
        return
    # OpenCV's exact transform never says less than the true distance, so the source stays exact.
    distance = cv2.distanceTransform(
        (~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, dstType=cv2.CV_32F
    )
    core, fading = distance <= dilate, (distance > dilate) & (distance < dilate + feather)
    cv2.copyTo(after, core.view(np.uint8), shown)
    part = (distance[fading] - dilate) / max(feather, 1)
    weight = (1 - part**2 * (3 - 2 * part))[:, None]  # smoothstep
    shown[fading] = np.rint(weight * after[fading] + (1 - weight) * shown[fading]).astype(np.uint8)


def _surroundings(mask: np.ndarray, pixels: int) -> tuple[slice, slice]:
    """The rectangle that holds all that lies within so many pixels of the mask."""
    spans = []
    for axis in (0, 1):
        found = np.flatnonzero(mask.any(axis=1 - axis))
        if not len(found):
            return slice(0), slice(0)
        spans.append(slice(max(0, found[0] - pixels), found[-1] + pixels + 1))
    return spans[0], spans[1]
