"""Masks of a few frames carried through a clip by optical flow and GrabCut, without any weights.

From one frame to the next a mask is warped by DIS flow (Kroeger et al., ECCV 2016) of the grey that
best tells the thing from what is around it, and then moved by a few pixels onto the edges seen.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from kvlock.masks.grabcut import FEWEST, refined, resized, scale_for
from kvlock.masks.morphology import signed_distance
from kvlock.metrics.flow import SMALLEST, warp

TRUSTED = 0.7  # a frame below it wants another look
AROUND = 8  # px of background beside the thing, from which its grey sets it apart
SPREAD = 100.0  # variance of 8-bit colours that counts as none
ALIKE = 0.5  # IoU from which the outlines of two sides are averaged


class Carried(NamedTuple):
    """masks: bool [F, H, W]; confidence: float [F] in [0, 1], of keyed frames 1.

    The confidence is the least, since the key, of four: the IoU of a mask with itself carried to
    the next frame and back, that of the warped mask with the refined one, the likeness of its
    colours to those of the frame before, and the ratio of its area to the key's. It says where to
    look; it is not the expected IoU.
    """

    masks: Tensor
    confidence: Tensor


def propagate(video: Tensor, keys: Mapping[int, Tensor]) -> Carried:
    """Keyed frames, bool [H, W] by frame number, carried through a clip uint8 [F, H, W, 3].

    A frame between two keys is reached from both, and has the average of both outlines where they
    are alike, else that of the surer side. The same on every run. Raises ValueError for no key, a
    key that is empty or of another size or of no frame, and a clip too small for the flow.
    """
    frames, height, width = video.shape[:3]
    check_keys(keys, (frames, height, width))
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"the clip is {width}x{height}; expected {SMALLEST} px or more a side to carry a mask"
        )
    scale = scale_for(height, width)
    size = max(SMALLEST, round(height * scale)), max(SMALLEST, round(width * scale))
    small = [resized(frame.numpy(), size) for frame in video]
    known = {t: resized(mask.numpy(), size) for t, mask in sorted(keys.items())}
    masks, confidence = _from_both_sides(small, known)
    full = [keys[t].numpy() if t in keys else resized(m, (height, width)) for t, m in masks]
    return Carried(torch.from_numpy(np.stack(full)), torch.tensor(confidence))


def check_keys(keys: Mapping[int, Tensor], size: Sequence[int]) -> None:
    """Raise ValueError where the keyed masks do not fit a clip of (frames, height, width)."""
    if not keys:
        raise ValueError("no frame has a mask; give one with --frame, --box or --point")
    for number, mask in keys.items():
        if not 0 <= number < size[0]:
            raise ValueError(f"frame {number} is not in the clip; expected 0 to {size[0] - 1}")
        if tuple(mask.shape) != tuple(size[1:]):
            shape = f"{mask.shape[1]}x{mask.shape[0]}, the clip {size[2]}x{size[1]}"
            raise ValueError(f"the mask of frame {number} is {shape}; give one of the clip's size")
        if not mask.any():
            raise ValueError(
                f"the mask of frame {number} is empty; mark the thing, or another frame"
            )


def carried_on(frames: list[np.ndarray], mask: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """The first frame's mask, bool [H, W], in every frame uint8 [H, W, 3], and the confidences."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    band = max(2, min(mask.shape) // 80)
    masks, confidence = [mask], [1.0]
    for before, after in zip(frames, frames[1:]):
        next_mask, sure = _step(flow, before, after, masks[-1], band)
        masks.append(next_mask)
        confidence.append(min(confidence[-1], sure, _ratio(next_mask, mask)))
    return masks, confidence


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of bool [H, W]; 1 for two empty masks."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def _from_both_sides(
    frames: list[np.ndarray], known: Mapping[int, np.ndarray]
) -> tuple[list[tuple[int, np.ndarray]], list[float]]:
    """Every frame's mask with its number, and the confidences."""
    first, last = min(known), max(known)
    backward = carried_on(frames[first::-1], known[first])
    masks, confidence = backward[0][::-1], backward[1][::-1]
    for start, end in pairwise(sorted(known)):
        ahead = carried_on(frames[start:end], known[start])
        back = carried_on(frames[end:start:-1], known[end])
        for step in range(1, end - start):
            nearness = step / (end - start)
            other = back[0][end - start - step], back[1][end - start - step]
            joined = _joined((ahead[0][step], ahead[1][step]), other, nearness)
            masks.append(joined[0])
            confidence.append(joined[1])
        masks.append(known[end])
        confidence.append(1.0)
    forward = carried_on(frames[last:], known[last])
    masks += forward[0][1:]
    confidence += forward[1][1:]
    return list(enumerate(masks)), confidence


def _step(
    flow: cv2.DISOpticalFlow, before: np.ndarray, after: np.ndarray, mask: np.ndarray, band: int
) -> tuple[np.ndarray, float]:
    """The next frame's mask, and how sure that step is."""
    if mask.sum() < FEWEST:
        return np.zeros_like(mask), 0.0
    grey = _telling_grey(before, after, mask)
    back = flow.calc(grey[1], grey[0], None)  # type: ignore[call-overload]
    forth = flow.calc(grey[0], grey[1], None)  # type: ignore[call-overload]
    warped = warp(mask.astype(np.float32), back) > 0.5
    found = refined(after, warped, band)
    returned = warp(warped.astype(np.float32), forth) > 0.5
    alike = _likeness(before[mask], after[found])
    return found, min(iou(mask, returned), iou(warped, found), alike)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """How far two sets of colours, uint8 [N, 3], overlap: the Bhattacharyya coefficient of their
    normal distributions, 1 for equal ones.
    """
    if min(len(one), len(other)) < FEWEST:
        return 0.0
    (a, b), shift = (_scatter(c) for c in (one, other)), one.mean(axis=0) - other.mean(axis=0)
    middle = (a + b) / 2
    spread = np.linalg.det(middle) / np.sqrt(np.linalg.det(a) * np.linalg.det(b))
    return float(np.exp(-shift @ np.linalg.solve(middle, shift) / 8) / np.sqrt(spread))


def _scatter(colours: np.ndarray) -> np.ndarray:
    """The covariance of 8-bit colours [N, 3], of at least SPREAD in every direction."""
    return np.cov(colours.T.astype(np.float64)) + SPREAD * np.eye(3)


def _telling_grey(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """Two frames as grey, uint8 [H, W], in the colours that best tell a thing from its surroundings.

    Fisher's linear discriminant: a thing as light as what is behind it would have no edge in
    luminance, and the flow none to follow.
    """
    side = 2 * AROUND + 1
    grown = cv2.dilate(mask.view(np.uint8), np.ones((side, side), np.uint8)) > 0
    inside, outside = (before[m] for m in (mask, grown & ~mask))
    if len(outside) < FEWEST:
        return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    scatter = (_scatter(inside) + _scatter(outside)) / 2
    direction = np.linalg.solve(scatter, inside.mean(axis=0) - outside.mean(axis=0))
    grey = [frame @ direction for frame in (before, after)]
    low, high = np.percentile(grey[0], (1, 99))
    spread = 255 / max(high - low, 1e-9)
    return [((g - low) * spread).clip(0, 255).astype(np.uint8) for g in grey]


def _joined(
    ahead: tuple[np.ndarray, float], back: tuple[np.ndarray, float], nearness: float
) -> tuple[np.ndarray, float]:
    """One frame's mask from two sides; nearness in [0, 1] is that to the later key."""
    weights = ahead[1] * (1 - nearness), back[1] * nearness
    likeness, surer = iou(ahead[0], back[0]), (ahead if weights[0] >= weights[1] else back)
    if min(ahead[1], back[1]) < TRUSTED or likeness < ALIKE:
        both_sure = min(ahead[1], back[1]) >= TRUSTED
        return surer[0], min(surer[1], likeness) if both_sure else surer[1]
    levels = weights[0] * signed_distance(ahead[0]) + weights[1] * signed_distance(back[0])
    return levels > 0, max(likeness, min(ahead[1], back[1]))


def _ratio(one: np.ndarray, other: np.ndarray) -> float:
    """The smaller mask's area over the larger's."""
    small, large = sorted((one.sum(), other.sum()))
    return float(small / large) if large else 1.0
