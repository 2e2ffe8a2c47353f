"""Source pixels pasted back outside the mask, for a background that is exact."""

import numpy as np
import torch
import torch.nn.functional as F

from kvlock.media.mask import dilate_mask


def composite(source: np.ndarray, edited: np.ndarray, mask: np.ndarray, dilate: int = 4, feather: int = 4) -> np.ndarray:
    """The edit inside the dilated mask, the source outside, over a feather of `feather` pixels.

    source, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W]. Beyond dilate + feather pixels the source is exact.
    """
    grown = torch.from_numpy(dilate_mask(mask, dilate).astype(np.float32))
    if feather:
        kernel = 2 * feather + 1
        wide = F.max_pool2d(grown, kernel, stride=1, padding=feather)
        near = F.avg_pool2d(wide, kernel, stride=1, padding=feather, count_include_pad=False)
        grown = torch.maximum(grown, near * wide)
        grown = torch.where(F.max_pool2d(torch.from_numpy(dilate_mask(mask, dilate).astype(np.float32)), kernel, 1, feather) > 0, grown, 0.0)
    weight = grown.numpy()[..., None]
    return np.rint(weight * edited + (1 - weight) * source).astype(np.uint8)
