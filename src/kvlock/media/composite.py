"""Source pixels pasted back outside the mask, for a background that is exact."""

import numpy as np
import torch
import torch.nn.functional as F

from kvlock.media.mask import dilate_mask


def composite(
    source: np.ndarray, edited: np.ndarray, mask: np.ndarray, dilate: int = 4, feather: int = 4
) -> np.ndarray:
    """The edit inside the dilated mask, the source outside, over a feather of `feather` pixels.

    source, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W]. Beyond dilate + feather pixels the source is exact.
    """
    radius = feather // 2
    wide = torch.from_numpy(dilate_mask(mask, dilate + radius).astype(np.float32))
    blurred = F.avg_pool2d(wide, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
    weight = blurred.numpy()[..., None]
    return np.rint(weight * edited + (1 - weight) * source).astype(np.uint8)
