"""COCO's run lengths (pycocotools): columns one after the other, background first."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def decode_rle(record: Mapping[str, Any]) -> np.ndarray:
    """bool [H, W] of {"size": [H, W], "counts": a list or COCO's string of characters}.

    Raises ValueError or KeyError for what is none.
    """
    height, width = (int(side) for side in record["size"])
    counts = record["counts"]
    runs = np.array(_unpacked(counts) if isinstance(counts, str) else counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"run lengths add up to {runs.sum()}, not to {width}x{height}")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(values.reshape(width, height).T)


def frames_of(record: Any, objects: Sequence[int] = ()) -> list[np.ndarray]:
    """bool [H, W] a frame, of what a JSON file holds.

    Either a list of run lengths, one a frame, null where nothing is marked; or an object with
    "annotations": YouTube-VIS' ("segmentations", one a frame) or COCO's ("image_id" is a frame).
    `objects` are the ids of the annotations that count, or their "track_id"; all without any.
    Raises ValueError, KeyError or TypeError for what is none.
    """
    if isinstance(record, list):
        return _filled([[one] if one else [] for one in record])
    wanted = [
        a
        for a in record["annotations"]
        if not objects or a.get("track_id", a.get("id")) in objects or a.get("id") in objects
    ]
    if not wanted:
        raise ValueError(f"no annotation has an id of {', '.join(map(str, objects))}")
    if "segmentations" in wanted[0]:
        frames = zip(*(a["segmentations"] for a in wanted), strict=True)
        return _filled([[one for one in frame if one] for frame in frames])
    known = record.get("images") or [{"id": a["image_id"]} for a in record["annotations"]]
    by_image: dict[Any, list[Any]] = {number: [] for number in sorted({i["id"] for i in known})}
    for annotation in wanted:
        by_image[annotation["image_id"]].append(annotation["segmentation"])
    return _filled(list(by_image.values()))


def _filled(frames: list[list[Any]]) -> list[np.ndarray]:
    """Each frame's run lengths together; nothing where it has none."""
    masks = [[decode_rle(one) for one in frame] for frame in frames]
    sizes = {mask.shape for frame in masks for mask in frame}
    if len(sizes) != 1:
        raise ValueError(f"it has masks of {len(sizes)} sizes; expected one")
    empty = np.zeros(sizes.pop(), bool)
    return [np.logical_or.reduce([empty, *frame]) for frame in masks]


def _unpacked(text: str) -> list[int]:
    """COCO's string: five bits a character from '0' on, and from the third on differences."""
    runs: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift  # a negative difference
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("the run lengths end in the middle of a number")
    return runs
