"""Masks from files: bool [F, H, W], True (white) where the edit may happen."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kvlock.media.arrays import read_array
from kvlock.media.clip import BadVideoError, check_is_data
from kvlock.media.decoding import read_alpha
from kvlock.media.fit import scale_mask
from kvlock.media.images import (
    IMAGES,
    alpha,
    frame_files,
    is_deep,
    open_image,
    scaled_to_8_bits,
)
from kvlock.media.labels import ARRAYS, JSON, read_objects
from kvlock.media.video import read_video

THRESHOLD = 127
DARK, BRIGHT = 48, 207  # what lies between is grey
GREY_SHARE = 0.02  # JPEG and video noise stays far below; a soft or wrong picture is far above
MOST_LABELS = 16  # a lossless picture that nowhere exceeds this holds numbers, not shades
ASPECT_TOLERANCE = 0.01
NEUTRAL = 16  # how far the channels of a grey may lie apart
WHITES = (1, 255, 65535)  # an array's
LUMINANCE = np.array([0.299, 0.587, 0.114])


class MaskFile(NamedTuple):
    """A mask bool [F, H, W], and sentences for the user on how its file was understood."""

    mask: Tensor
    notes: tuple[str, ...]


def read_mask(
    path: str | Path,
    frames: int,
    height: int,
    width: int,
    invert: bool = False,
    dilate: int = 0,
    objects: Sequence[int] = (),
) -> MaskFile:
    """A mask for a clip of that size, from a video, images, an image, npy, npz or COCO's JSON.

    One image stands for all frames. `objects` picks numbers, of labels, palettes and annotations.
    Images and videos with transparency are read from their alpha, palette
    images with an object's colours (DAVIS) as index above 0, others by luminance, above 127; a
    lossless one that holds only small numbers, such as 0 and 1, as above 0. `dilate` grows the mask
    by that many pixels on every side. A mask of another size and the same aspect (within 1 %) is
    scaled, and any marked pixel stays marked.
    Raises BadVideoError where the aspect, the frame count or the content does not fit.
    """
    path = Path(path)
    if not path.exists():
        raise BadVideoError(f"{path}: no such mask file or folder")
    check_is_data(path)
    if dilate < 0:
        raise ValueError(f"dilate is {dilate}; expected 0 or more pixels")
    found, notes = _read(path, frames, objects)
    if len(found) not in (1, frames):
        raise BadVideoError(
            f"{path}: the mask has {len(found)} frames, the clip {frames}; "
            f"give {frames} frames, or a single image for all of them"
        )
    mask = torch.from_numpy(~found if invert else found)
    if mask.shape[1:] != (height, width):
        notes = [*notes, _scaling_note(path, mask.shape[1:], (height, width))]
        mask = scale_mask(mask, (height, width))
    if not mask.any():
        known = "".join(f"; {note.removeprefix(f'{path}: ')}" for note in notes)
        inverted = " after it is inverted" if invert else ""
        raise BadVideoError(
            f"{path}: the mask is empty{inverted}; white marks what may be edited{known}"
        )
    grown = dilate_mask(mask, dilate)
    return MaskFile(grown.expand(frames, height, width).contiguous(), tuple(notes))


def dilate_mask(mask: Tensor, pixels: int) -> Tensor:
    """bool [F, H, W] grown by `pixels` on every side, in the same time for any number of them."""
    if not pixels:
        return mask.clone()
    return torch.stack([_grown(_grown(frame, pixels, 0), pixels, 1) for frame in mask])


def _grown(frame: Tensor, pixels: int, axis: int) -> Tensor:
    """bool [H, W], True where anything within so many pixels along the axis is."""
    size = frame.shape[axis]
    before = torch.cat(
        [frame.new_zeros(frame.shape).narrow(axis, 0, 1).int(), frame.cumsum(axis)], axis
    )
    at = torch.arange(size)
    last, first = (at + pixels + 1).clamp(max=size), (at - pixels).clamp(min=0)
    return before.index_select(axis, last) > before.index_select(axis, first)


def _scaling_note(path: Path, size: Sequence[int], wanted: tuple[int, int]) -> str:
    """Says that a mask [height, width] is scaled; raises BadVideoError for another aspect."""
    (height, width), (clip_height, clip_width) = size, wanted
    sizes = f"the mask is {width}x{height}, the clip {clip_width}x{clip_height}"
    if 0 in size or abs(width * clip_height / (height * clip_width) - 1) > ASPECT_TOLERANCE:
        raise BadVideoError(
            f"{path}: {sizes}, and their shapes differ; make a mask of {clip_width}x{clip_height}"
        )
    return f"{path}: {sizes}; the mask is scaled, and what it marks stays marked"


def _read(path: Path, frames: int, objects: Sequence[int]) -> tuple[np.ndarray, list[str]]:
    """bool [F, H, W] at the file's own size, and notes."""
    if objects or path.suffix.lower() in JSON:
        return read_objects(path, objects), []
    if path.is_dir():
        files = frame_files(path)
        pictures = [_picture(f) for f in files]
        if len({p.shape for p in pictures}) > 1:
            raise BadVideoError(f"{path}: the mask's images differ in size")
        return _marked(path, pictures, is_lossless=all(f.suffix.lower() == ".png" for f in files))
    if path.suffix.lower() in ARRAYS:
        return _array_mask(path), []
    if path.suffix.lower() in IMAGES:
        return _marked(path, [_picture(path)], is_lossless=path.suffix.lower() == ".png")
    clip = read_video(path, max_frames=max(frames, 1) * 4)
    opacity = read_alpha(path)
    if opacity is not None:
        return _marked(path, opacity, is_lossless=False)
    marked, notes = _marked(path, (f.numpy() @ LUMINANCE for f in clip.frames), is_lossless=False)
    return marked, [*clip.notes, *notes]


def _marked(
    path: Path, pictures: Iterable[np.ndarray], is_lossless: bool
) -> tuple[np.ndarray, list[str]]:
    """Levels [H, W] from 0 to 255, frame by frame -> bool [F, H, W], and notes."""
    white, above_nothing, grey, top = [], [], [], 0.0
    for levels in pictures:
        white.append(levels > THRESHOLD)
        above_nothing.append(levels > 0)
        grey.append(((levels > DARK) & (levels < BRIGHT)).mean())
        top = max(top, float(levels.max()))
    if np.mean(grey) > GREY_SHARE:
        share = f"{np.mean(grey):.0%}"
        raise BadVideoError(
            f"{path}: the mask is not black and white ({share} of its pixels are grey)"
        )
    if is_lossless and 0 < top <= MOST_LABELS:
        note = f"{path}: its values go from 0 to {top:g} and not to 255, like numbers of objects"
        return np.stack(above_nothing), [f"{note}; all above 0 is taken as marked"]
    notes = [f"{path}: its brightest value is {top:.0f} of 255"] if 0 < top <= THRESHOLD else []
    return np.stack(white), notes


def _picture(path: Path) -> np.ndarray:
    """uint8 [H, W], white where the mask is."""
    image = open_image(path)
    opacity = alpha(image)
    if opacity is not None:
        return opacity
    if image.mode == "P" and _is_labelled(image):
        return (np.asarray(image) > 0) * np.uint8(255)
    if is_deep(image):
        values = np.asarray(image)
        is_small = values.max() <= MOST_LABELS
        return values.astype(np.uint8) if is_small else scaled_to_8_bits(values)
    return np.asarray(image.convert("L"))


def _is_labelled(image: Image.Image) -> bool:
    """Whether a palette's colours only tell objects apart, and index 0 is the background (DAVIS).

    Where all that is used is black or white, or index 0 is not dark, the colours mean what they
    show.
    """
    palette = np.zeros((256, 3), int)
    stored = np.array(image.getpalette("RGB") or [], int).reshape(-1, 3)
    palette[: len(stored)] = stored
    used = palette[np.unique(np.asarray(image))]
    low, high = used.min(axis=1), used.max(axis=1)
    is_plain = ((high <= DARK) | (low >= BRIGHT)) & (high - low <= NEUTRAL)
    return bool(palette[0].max() <= DARK and not is_plain.all())


def _array_mask(path: Path) -> np.ndarray:
    array = read_array(path)
    if array.dtype == bool:
        return array
    is_number = array.dtype.kind in "iuf"
    if not is_number or not any(((array == 0) | (array == white)).all() for white in WHITES):
        raise BadVideoError(
            f"{path}: the array is not black and white; expected bool, 0 and 1, or 0 and 255"
        )
    return array > 0
