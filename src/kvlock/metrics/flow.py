"""Does the clip move as its source does? Flow warping error (Lai et al., arXiv 1808.00449)."""

import cv2
import numpy as np
from torch import Tensor

SMALLEST = 16  # px; on less, DIS flow of OpenCV 5.0 ends the process


def warp_errors(source: Tensor, edited: Tensor) -> tuple[float, float]:
    """Mean squared difference between a frame and the next one warped back to it: (edited, source).

    source, edited: uint8 [F, H, W, 3]; the errors lie in [0, 1]. The flow is DIS optical flow of
    the source, for both; pixels that are occluded by its forward-backward check, or that come from
    outside the picture, do not count. The mean over pairs of frames. The source's own number says
    how much of the edit's is the flow's. NaN for one frame, or a side below 16 px.
    """
    if len(source) < 2 or min(source.shape[1:3]) < SMALLEST:
        return float("nan"), float("nan")
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    clips = edited.cpu().numpy(), source.cpu().numpy()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clips[1]]
    errors = []
    for t in range(len(source) - 1):
        forward = estimator.calc(grey[t], grey[t + 1], None)  # type: ignore[call-overload]
        backward = estimator.calc(grey[t + 1], grey[t], None)  # type: ignore[call-overload]
        seen = visible(forward, backward)
        if seen.any():
            errors.append([_pair_error(clip[t], clip[t + 1], forward, seen) for clip in clips])
    pair = np.mean(errors, axis=0) if errors else np.full(2, np.nan)
    return float(pair[0]), float(pair[1])


def visible(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Pixels of the first frame that are in the second: bool [H, W], of flows [H, W, 2] in pixels.

    |f + b(x + f)|^2 < 0.01 (|f|^2 + |b(x + f)|^2) + 0.5 (Sundaram et al., ECCV 2010), and x + f
    inside the picture. The flows are OpenCV's own arrays.
    """
    returned = warp(backward, forward)
    limit = 0.01 * ((forward**2).sum(-1) + (returned**2).sum(-1)) + 0.5
    height, width = forward.shape[:2]
    x, y = _targets(forward)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside & (((forward + returned) ** 2).sum(-1) < limit)


def _pair_error(first: np.ndarray, second: np.ndarray, flow: np.ndarray, seen: np.ndarray) -> float:
    back = warp(second.astype(np.float32), flow)
    return float((((first - back) / 255) ** 2)[seen].mean())


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The image as seen from the frame that the flow starts in."""
    return cv2.remap(
        image, *_targets(flow), interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _targets(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return x + flow[..., 0], y + flow[..., 1]
