"""An item of a suite as it is edited: its clip, its mask, and what the edit is compared with."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from kvlock.bench.scores import Reference
from kvlock.bench.suite import Item, Suite
from kvlock.core.protocols import Backbone
from kvlock.core.types import EditRequest, EditResult
from kvlock.editing.clips import clip_size, edit, fit_of
from kvlock.media.fit import Fit, fit_video, unfit_video
from kvlock.media.mask_files import read_mask
from kvlock.media.video import Clip, read_video
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import MethodConfig
from kvlock.shapes.scenes import SEED_STRIDE, scene_clips, scene_request, scene_timing

MOST_FRAMES = 1024


@dataclass(frozen=True)
class Subject:
    """An item as it is edited (`request`), scored (`known`) and written (the times of `clip`)."""

    item: Item
    request: EditRequest
    clip: Clip
    known: Reference


def load_subject(suite: Suite, item: Item, seed: int) -> Subject:
    """An item's clip, mask and truth. In the built-in world seed 0 stands for the scene's own seed.

    Raises ValueError for files that cannot be read, or a truth of another size than the clip.
    """
    return (
        _from_files(suite, item, seed)
        if item.scene is None
        else _from_scene(item, item.scene, seed)
    )


def _from_scene(item: Item, scene: int, seed: int) -> Subject:
    request = replace(
        scene_request(scene, noise=scene + SEED_STRIDE * seed),
        prompt=item.prompt,
        source_prompt=item.source_prompt,
        negative_prompt=item.negative_prompt,
    )
    known = Reference(request.video, request.mask, scene_clips(scene)["truth"], scene)
    return Subject(item, request, scene_timing(request.video), known)


def _from_files(suite: Suite, item: Item, seed: int) -> Subject:
    rate = Fraction(item.fps).limit_denominator(1001)
    clip = read_video(suite.folder / item.video, MOST_FRAMES, rate)
    frames, height, width, _ = clip.frames.shape
    mask = read_mask(suite.folder / item.mask, frames, height, width, item.invert_mask).mask
    truth = read_video(suite.folder / item.truth, MOST_FRAMES).frames if item.truth else None
    if truth is not None and truth.shape != clip.frames.shape:
        found, expected = (tuple(x.shape[:3]) for x in (truth, clip.frames))
        raise ValueError(f"{item.id}: the truth is {found}, the clip {expected}; expected the same")
    prompts = item.prompt, item.source_prompt, item.negative_prompt
    request = EditRequest(clip.frames, mask, *prompts, seed)
    return Subject(item, request, clip, Reference(clip.frames, mask, truth))


def edit_subjects(
    backbone: Backbone, config: MethodConfig, subjects: list[Subject]
) -> list[EditResult]:
    """Edit a batch of the built-in world's scenes together, or clips from files one by one."""
    if subjects[0].item.scene is not None:
        return edit_clips(backbone, [s.request for s in subjects], config)
    return [edit(backbone, s.request, config, _fit(backbone, s)) for s in subjects]


@torch.no_grad()
def round_trip(backbone: Backbone, subject: Subject) -> Tensor:
    """The truth, or without one the source, through the VAE and back: uint8 [F, H, W, 3]."""
    known, fit = subject.known, _fit(backbone, subject)
    clip = known.source if known.truth is None else known.truth
    coded = backbone.decode_video(backbone.encode_video(fit_video(clip, fit)[None]))[0]
    return unfit_video(coded, fit)


def _fit(backbone: Any, subject: Subject) -> Fit:
    family = backbone.spec
    size = clip_size(subject.request.video)
    return fit_of(backbone, size, family.size, family.max_frames or MOST_FRAMES)
