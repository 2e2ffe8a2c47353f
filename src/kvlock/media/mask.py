"""Masks: bool [F, H, W], True (white) where the edit may happen."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from kvlock.media.video import IMAGES, BadVideoError, frame_files, open_image, read_video

THRESHOLD = 127
GREY_SHARE = 0.02  # JPEG and video noise stays far below; a soft or wrong picture is far above


def read_mask(
    path: str | Path, frames: int, height: int, width: int, invert: bool = False, dilate: int = 0
) -> np.ndarray:
    """A mask for a clip of that size, from a video, a folder of images, one image for all frames, or an npy file.

    Images with transparency are read from their alpha, palette images (DAVIS) as index above 0, others by luminance,
    above 127. `dilate` grows the mask by that many pixels on every side.
    Raises BadVideoError where the size, the frame count or the content does not fit.
    """
    path = Path(path)
    if not path.exists():
        raise BadVideoError(f"{path}: no such mask file or folder")
    if dilate < 0:
        raise ValueError(f"dilate is {dilate}; expected 0 or more pixels")
    mask = _read(path, frames)
    if mask.shape[1:] != (height, width):
        raise BadVideoError(
            f"{path}: the mask is {mask.shape[2]}x{mask.shape[1]}, the clip {width}x{height}; "
            f"scale the mask to {width}x{height}"
        )
    if len(mask) not in (1, frames):
        raise BadVideoError(
            f"{path}: the mask has {len(mask)} frames, the clip {frames}; "
            f"give {frames} frames, or a single image for all of them"
        )
    mask = np.broadcast_to(~mask if invert else mask, (frames, height, width))
    if not mask.any():
        raise BadVideoError(f"{path}: the mask is empty; white marks what may be edited (try --invert-mask)")
    return dilate_mask(mask, dilate)


def dilate_mask(mask: np.ndarray, pixels: int) -> np.ndarray:
    """bool [F, H, W] grown by `pixels` on every side."""
    if not pixels:
        return np.array(mask)
    grown = torch.from_numpy(mask.astype(np.float32))
    for side in ((2 * pixels + 1, 1), (1, 2 * pixels + 1)):
        grown = F.max_pool2d(grown, side, stride=1, padding=(side[0] // 2, side[1] // 2))
    return grown.numpy() > 0


def _read(path: Path, frames: int) -> np.ndarray:
    if path.is_dir():
        images = [_image_mask(f) for f in frame_files(path)]
        if len({m.shape for m in images}) > 1:
            raise BadVideoError(f"{path}: the mask's images differ in size")
        return np.stack(images)
    if path.suffix.lower() == ".npy":
        return _array_mask(path)
    if path.suffix.lower() in IMAGES:
        return _image_mask(path)[None]
    video = read_video(path, max_frames=max(frames, 1) * 4).frames
    return _threshold(path, video @ np.array([0.299, 0.587, 0.114]))


def _image_mask(path: Path) -> np.ndarray:
    image = open_image(path)
    if image.mode == "P" and "transparency" not in image.info:
        return np.asarray(image) > 0
    if image.mode in ("RGBA", "LA", "P"):
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255:
            return _threshold(path, alpha)
    if image.mode == "1":
        return np.asarray(image)
    return _threshold(path, np.asarray(image.convert("L")))


def _array_mask(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file)  # npy and no pickle; np.load would open an npz, too
    except Exception as error:  # MemoryError, even, where a damaged header promises a huge array
        raise BadVideoError(f"{path}: cannot be read as an array ({error})") from error
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise BadVideoError(f"{path}: the array has shape {array.shape}; expected [F, H, W] or [H, W]")
    if array.dtype == bool:
        return array
    values = np.unique(array) if array.dtype.kind in "iuf" else np.array([np.nan])
    if not np.isin(values, (0, 1)).all() and not np.isin(values, (0, 255)).all():
        raise BadVideoError(f"{path}: the array is not black and white; expected bool, 0 and 1, or 0 and 255")
    return array > 0


def _threshold(path: Path, luminance: np.ndarray) -> np.ndarray:
    grey = float(((luminance > 48) & (luminance < 207)).mean())
    if grey > GREY_SHARE:
        raise BadVideoError(f"{path}: the mask is not black and white ({grey:.0%} of its pixels are grey)")
    return luminance > THRESHOLD
