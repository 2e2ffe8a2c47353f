"""Masks without any weights, against the truth: IoU a frame, and whether bad frames are named.

    python benchmarks/masks.py [--num 32] [--sizes 96,256] [--seed 0] [--clips FOLDER] [--out FILE.md]

Scenes of the built-in world, 33 frames: the subject's own outline is the truth. Then the same
scenes with what makes a mask go wrong: something passes in front, the camera is covered, a cut.
`--clips` adds a folder's clips that have a mask for every frame (NAME_video.mp4, NAME_mask.mp4).
Keyed frames are given from the truth and do not count. Settings were chosen on seeds from 10000 on.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from kvlock.masks.grabcut import Box, Point, cut
from kvlock.masks.propagate import TRUSTED, propagate
from kvlock.media.files import write_text
from kvlock.media.mask_files import read_mask
from kvlock.media.video import read_video
from kvlock.shapes.render import render_scene, render_subject
from kvlock.shapes.scene import random_scene

FRAMES, NATIVE = 33, 9
SMALL = 96  # px a side of the scenes in which something goes wrong
BAD = 0.7
FEWEST = 30  # pixels of a thing that can be painted

Clip = tuple[Tensor, Tensor]  # uint8 [F, H, W, 3], bool [F, H, W]


@dataclass
class Row:
    """One way on one set of clips; IoU, confidence and seconds of every frame that is not keyed."""

    name: str
    iou: list[float] = field(default_factory=list)
    sure: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        iou, named = np.array(self.iou), np.array(self.sure) < TRUSTED
        bad = iou < BAD
        recall = f"{named[bad].mean():.0%} of {bad.sum()}" if bad.any() else "none is bad"
        numbers = f"{iou.mean():.3f} | {iou.min():.3f} | {recall} | {named[~bad].mean():.1%}"
        return f"| {self.name} | {numbers} | {1000 * self.seconds / len(iou):.0f} ms |"


HEADER = (
    "| way | mean IoU | worst frame | frames under 0.7 that are named | good frames named | a frame |"
    "\n|---|---|---|---|---|---|"
)


def scenes(seeds: Iterable[int], frames: int, side: int) -> Iterator[Clip]:
    """Clips of the built-in world and their subject's true mask."""
    for seed in seeds:
        scene = random_scene(seed)
        clip, truth = (
            torch.from_numpy(render(scene, frames, side, side))
            for render in (render_scene, render_subject)
        )
        yield clip, truth


def passed(clip: Clip) -> Clip:
    """A bar a fifth as wide as the picture passes in front."""
    video, truth = (part.clone() for part in clip)
    frames, width = len(video), video.shape[2]
    for t in range(frames):
        left = round((1.2 * t / frames - 0.2) * width)
        bar = slice(max(0, left), max(0, left + width // 5))
        video[t, :, bar], truth[t, :, bar] = torch.tensor([120, 90, 60], dtype=torch.uint8), False
    return video, truth


def covered(clip: Clip) -> Clip:
    """The camera sees nothing for three frames in the middle."""
    video, truth = (part.clone() for part in clip)
    middle = slice(len(video) // 2, len(video) // 2 + 3)
    video[middle], truth[middle] = 30, False
    return video, truth


def cut_to(clip: Clip, other: Clip) -> Clip:
    """The second half is of another scene, in which the thing is not."""
    video, truth = (part.clone() for part in clip)
    half = len(video) // 2
    video[half:], truth[half:] = other[0][half:], False
    return video, truth


def box_of(mask: Tensor) -> Box:
    """A box around the mask, with 2 % of the frame on each side."""
    ys, xs = np.nonzero(mask.numpy())
    room = max(1, round(0.02 * min(mask.shape)))
    top, left = max(0, ys.min() - room), max(0, xs.min() - room)
    bottom = min(mask.shape[0], ys.max() + 1 + room)
    right = min(mask.shape[1], xs.max() + 1 + room)
    return int(left), int(top), int(right - left), int(bottom - top)


def middle_of(mask: Tensor) -> Point:
    """The pixel that is farthest from the outline."""
    depth = cv2.distanceTransform(mask.numpy().view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def by_box(frame: Tensor, truth: Tensor) -> Tensor:
    """The thing in its box."""
    return torch.from_numpy(cut(frame.numpy(), box_of(truth)))


def by_point(frame: Tensor, truth: Tensor) -> Tensor:
    """The thing under one point."""
    return torch.from_numpy(cut(frame.numpy(), points=[middle_of(truth)]))


def painted(frame: Tensor, truth: Tensor) -> Tensor:
    """The truth."""
    return truth


def measure(
    name: str, clips: Iterable[Clip], every: int | None, key: Callable[[Tensor, Tensor], Tensor]
) -> Row:
    """Carry keys through every clip: of the first frame, and of each `every`-th and the last."""
    row = Row(name)
    for video, truth in clips:
        numbers = [0] if every is None else [*range(0, len(video) - 1, every), len(video) - 1]
        marked = [t for t in numbers if truth[t].sum() >= FEWEST]
        if not marked:
            continue
        start = time.perf_counter()
        carried = propagate(video, {t: key(video[t], truth[t]) for t in marked})
        row.seconds += time.perf_counter() - start
        for t in range(len(video)):
            if t not in marked or key is not painted:
                row.iou.append(iou(carried.masks[t], truth[t]))
                row.sure.append(float(carried.confidence[t]))
    return row


def iou(one: Tensor, other: Tensor) -> float:
    """1 for two empty masks."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def world_rows(seeds: range, side: int) -> Iterator[Row]:
    """Every way on clean scenes of one size."""
    for every in (None, 16, 8):
        name = "one painted frame" if every is None else f"painted every {every}"
        yield measure(f"{side} px: {name}", scenes(seeds, FRAMES, side), every, painted)
    yield measure(f"{side} px: a box", scenes(seeds, FRAMES, side), None, by_box)
    yield measure(f"{side} px: a point", scenes(seeds, FRAMES, side), None, by_point)
    fast = scenes(seeds, NATIVE, side)
    yield measure(f"{side} px: one painted frame, {NATIVE} frames", fast, None, painted)


def hard_rows(seeds: range, side: int) -> Iterator[Row]:
    """Where a mask must go wrong: are those frames named?"""
    clips = list(scenes(seeds, FRAMES, side))
    others = scenes(range(seeds.start + 500, seeds.stop + 500), FRAMES, side)
    kinds = {
        "something passes in front": [passed(clip) for clip in clips],
        "the camera is covered": [covered(clip) for clip in clips],
        "a cut": [cut_to(*pair) for pair in zip(clips, others)],
    }
    for name, made in kinds.items():
        for every in (None, 8):
            keyed = "one painted frame" if every is None else f"painted every {every}"
            yield measure(f"{name}: {keyed}", made, every, painted)


def clip_rows(folder: Path) -> Iterator[Row]:
    """Every way on real clips with a mask for every frame."""
    for path in sorted(folder.glob("*_video.mp4")):
        video = read_video(path, 999).frames
        name = path.name.removesuffix("_video.mp4")
        frames, height, width = video.shape[:3]
        truth = read_mask(folder / f"{name}_mask.mp4", frames, height, width).mask
        for every in (None, 16, 8):
            keyed = "one painted frame" if every is None else f"painted every {every}"
            yield measure(f"{name}: {keyed}", [(video, truth)], every, painted)
        yield measure(f"{name}: a box", [(video, truth)], None, by_box)
        yield measure(f"{name}: a point", [(video, truth)], None, by_point)


def main() -> None:
    """Measure and print, a line as soon as it is known; --out gets the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", default="96,256")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + given.num)
    sizes = [int(side) for side in given.sizes.split(",") if side]
    lines = [HEADER]
    print(HEADER)

    def rows() -> Iterator[Row]:
        for side in sizes:
            yield from world_rows(seeds, side)
        yield from hard_rows(seeds, SMALL)
        if given.clips:
            yield from clip_rows(given.clips)

    for row in rows():
        print(row, flush=True)
        lines.append(str(row))
    if given.out:
        write_text(given.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
