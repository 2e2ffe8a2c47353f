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
from kvlock.masks.propagate import Carried, check_keys, propagate
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
        found = read_mask(job.mask, *clip.frames.shape[:3], objects=job.objects)
        carried = Carried(found.mask, torch.ones(len(found.mask)))
        notes += found.notes
    else:
        marked, more = keyed_frames(job, clip.frames)
        carried, keys = _tracked(job, clip.frames, marked), tuple(sorted(marked))
        notes += more
    mask = refine(carried.masks, job.refinements)
    if not mask.any():
        raise ValueError("nothing is left of the mask; take less of --shrink, or mark more")
    return MadeMask(clip, mask, carried.confidence, keys, job.refinements, tuple(notes))


def keyed_frames(job: MaskJob, video: Tensor) -> tuple[dict[int, Tensor], list[str]]:
    """The masks, bool [H, W], of the frames that are marked, by number, and notes."""
    count, height, width = video.shape[:3]
    keys, notes = {}, []
    for number, path in job.frames.items():
        found = read_mask(path, 1, height, width, objects=job.objects)
        keys[number] = found.mask[0]
        notes += found.notes
    for number in sorted({*job.boxes, *job.points, *job.not_points}):
        if not 0 <= number < count:
            raise ValueError(f"frame {number} is not in the clip; expected 0 to {count - 1}")
        on, off = job.points.get(number, ()), job.not_points.get(number, ())
        keys[number] = torch.from_numpy(cut(video[number].numpy(), job.boxes.get(number), on, off))
    if job.text:
        from kvlock.masks.text import find

        number, box = find(video, job.text, job.finder, job.device)
        keys.setdefault(number, torch.from_numpy(cut(video[number].numpy(), box)))
    check_keys(keys, (count, height, width))
    return keys, notes


def _tracked(job: MaskJob, video: Tensor, keys: Mapping[int, Tensor]) -> Carried:
    if job.tracker == "flow":
        return propagate(video, keys)
    from kvlock.masks.sam2 import track

    return track(video, keys, job.sam2, job.device)
