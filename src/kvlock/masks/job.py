"""What is asked for a mask, and how it is made: keyed frames or a file, then refinements."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kvlock.masks.grabcut import Box, Point, cut
from kvlock.masks.morphology import Refinements, refine
from kvlock.masks.propagate import Carried, propagate
from kvlock.media.clip import Clip
from kvlock.media.mask_files import read_mask
from kvlock.media.video import read_video

MOST_FRAMES = 1024
Tracker = Literal["flow", "sam2"]


@dataclass(frozen=True)
class MaskJob:
    """A mask for every frame of a clip, from what is known of some.

    clip: a video file, a folder of frames, or a clip in memory. frames: painted masks by frame
    number, files. boxes: (x, y, width, height) by frame; points, not_points: (x, y) on and off the
    thing by frame. text: what a network shall find. mask: every frame's, from a file; objects: the
    numbers that count in it. tracker: what carries keyed frames through, "flow" without any weights
    or "sam2"; sam2, finder: folders or names of their weights. fps: rate of a folder of frames.
    Raises ValueError where nothing says what is meant, or two things do.
    """

    clip: str | Path | Clip
    frames: Mapping[int, str | Path] = field(default_factory=dict)
    boxes: Mapping[int, Box] = field(default_factory=dict)
    points: Mapping[int, tuple[Point, ...]] = field(default_factory=dict)
    not_points: Mapping[int, tuple[Point, ...]] = field(default_factory=dict)
    text: str = ""
    mask: str | Path = ""
    objects: tuple[int, ...] = ()
    refinements: Refinements = Refinements()
    tracker: Tracker = "flow"
    sam2: str = ""
    finder: str = ""
    device: str = "auto"
    fps: float = 16

    def __post_init__(self) -> None:
        keyed = bool(self.frames or self.boxes or self.points or self.not_points or self.text)
        if keyed and self.mask:
            raise ValueError(
                f"--mask {self.mask} is a mask for all frames already; leave --frame, --box, "
                "--point and --text away, or it"
            )
        if not keyed and not self.mask:
            raise ValueError(
                "nothing says what to mask; give --frame 0=painted.png, --box x,y,w,h@0, "
                "--point x,y@0, --text or --mask"
            )
        twice = set(self.frames) & {*self.boxes, *self.points, *self.not_points}
        if twice:
            raise ValueError(
                f"frame {min(twice)} is painted and has a box or points, too; give one of them"
            )


@dataclass(frozen=True)
class MadeMask:
    """A mask, bool [F, H, W], of a clip. confidence: float [F] in [0, 1] by the way it was made.

    keys: the frames that were marked; none for a file. notes: sentences for the user.
    """

    clip: Clip
    mask: Tensor
    confidence: Tensor
    keys: tuple[int, ...]
    refinements: Refinements
    notes: tuple[str, ...]


def make_mask(job: MaskJob) -> MadeMask:
    """Read, find, carry through, refine; nothing is written.

    Raises ValueError, in one sentence, for files, frames, boxes and points that do not fit the
    clip, and for weights that are not there.
    """
    clip = job.clip
    if not isinstance(clip, Clip):
        clip = read_video(clip, MOST_FRAMES, Fraction(job.fps).limit_denominator(1001))
    keys, notes = (), list(clip.notes)
    if job.mask:
        frames, height, width = clip.frames.shape[:3]
        found = read_mask(job.mask, frames, height, width, objects=job.objects)
        carried = Carried(found.mask, torch.ones(len(found.mask)))
        notes += found.notes
    else:
        painted, more = _painted(job, clip.frames)
        boxes = _boxes(job, clip.frames)
        keys = tuple(sorted({*painted, *boxes, *job.points, *job.not_points}))
        notes += more
        carried = _carried(job, clip.frames, painted, boxes)
    mask = refine(carried.masks, job.refinements)
    if not mask.any():
        raise ValueError("nothing is left of the mask; take less of --shrink, or mark more")
    return MadeMask(clip, mask, carried.confidence, keys, job.refinements, tuple(notes))


def _painted(job: MaskJob, video: Tensor) -> tuple[dict[int, Tensor], list[str]]:
    """The painted masks, bool [H, W], by frame, and notes on their files."""
    height, width = video.shape[1:3]
    keys, notes = {}, []
    for number, path in job.frames.items():
        found = read_mask(path, 1, height, width, objects=job.objects)
        keys[number] = found.mask[0]
        notes += found.notes
    return keys, notes


def _boxes(job: MaskJob, video: Tensor) -> dict[int, Box]:
    """The boxes that were given, and that which words find, by frame."""
    for number in (*job.boxes, *job.points, *job.not_points):
        if not 0 <= number < len(video):
            raise ValueError(f"frame {number} is not in the clip; expected 0 to {len(video) - 1}")
    if not job.text:
        return dict(job.boxes)
    from kvlock.masks.text import find

    number, box = find(video, job.text, job.finder, job.device)
    return {number: box, **job.boxes}


def _carried(
    job: MaskJob, video: Tensor, painted: Mapping[int, Tensor], boxes: Mapping[int, Box]
) -> Carried:
    """Every frame's mask from those that are known."""
    if job.tracker == "sam2":
        from kvlock.masks.sam2 import load_sam2, track

        model = load_sam2(job.sam2, job.device)
        return track(model, video, painted, boxes, job.points, job.not_points)
    keys = dict(painted)
    for number in sorted({*boxes, *job.points, *job.not_points} - set(painted)):
        on, off = job.points.get(number, ()), job.not_points.get(number, ())
        mask = cut(video[number].numpy(), boxes.get(number), on, off)
        keys[number] = torch.from_numpy(mask)
    return propagate(video, keys)
