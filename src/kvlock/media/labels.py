"""Masks of numbered objects: palette and label pictures (DAVIS), arrays of labels, COCO's JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvlock.media.arrays import read_array
from kvlock.media.clip import BadVideoError
from kvlock.media.images import IMAGES, frame_files, open_image
from kvlock.media.rle import frames_of

ARRAYS = (".npy", ".npz")
JSON = (".json", ".jsonl")
MOST_NAMED = 20  # of the numbers that a file holds, in a message


def read_objects(path: Path, objects: Sequence[int]) -> np.ndarray:
    """bool [F, H, W], True where one of `objects` is. In JSON without any, everything counts.

    Raises BadVideoError for a file without numbers, and for a number that is not in it.
    """
    if path.suffix.lower() in JSON:
        return _annotated(path, objects)
    numbers = _numbers(path)
    held = np.unique(numbers)
    missing = sorted(set(objects) - {int(n) for n in held})
    if missing:
        known = ", ".join(str(n) for n in held[held > 0][:MOST_NAMED]) or "none"
        raise BadVideoError(f"{path}: there is no object {missing[0]} in it; it has {known}")
    return np.isin(numbers, list(objects))


def _numbers(path: Path) -> np.ndarray:
    """Integers [F, H, W]."""
    if path.suffix.lower() in ARRAYS:
        array = read_array(path)
        if array.dtype.kind not in "ui":
            raise BadVideoError(f"{path}: --object needs whole numbers, not {array.dtype}")
        return array
    if not (path.is_dir() or path.suffix.lower() in IMAGES):
        raise BadVideoError(
            f"{path}: --object picks numbered objects; expected palette PNGs, npy, npz or JSON"
        )
    pictures = [_picture_numbers(f) for f in (frame_files(path) if path.is_dir() else [path])]
    if len({p.shape for p in pictures}) > 1:
        raise BadVideoError(f"{path}: the mask's images differ in size")
    return np.stack(pictures)


def _picture_numbers(path: Path) -> np.ndarray:
    """Integers [H, W]: a palette's indices as they are stored, or a grey picture's values."""
    image = open_image(path)
    if image.mode not in ("P", "L") and not image.mode.startswith("I"):
        raise BadVideoError(
            f"{path}: --object picks numbered objects, and this is a picture in {image.mode}; "
            "expected a palette or grey PNG"
        )
    return np.asarray(image)


def _annotated(path: Path, objects: Sequence[int]) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8")
        by_line = path.suffix.lower() == ".jsonl"
        record = [json.loads(x) for x in text.splitlines() if x.strip()] if by_line else None
        return np.stack(frames_of(json.loads(text) if record is None else record, objects))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = f" ({error})" if type(error) is ValueError else ""  # our own words
        raise BadVideoError(
            f"{path}: cannot be read as COCO run lengths{why}; expected one record with size "
            "and counts a frame, or COCO's annotations"
        ) from error
