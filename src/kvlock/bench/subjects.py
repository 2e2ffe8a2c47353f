"""An item of a suite as it is edited: its clip, its mask, and what the edit is compared with."""

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from kvlock.backbones.checkpoints import family_of
from kvlock.backbones.family import Family
from kvlock.bench.scores import Reference
from kvlock.bench.suite import Item, Suite
from kvlock.contract.backbone import Backbone
from kvlock.contract.types import EditRequest, EditResult
from kvlock.editing.clips import edit, fit_of
from kvlock.editing.edit import MOST_FRAMES
from kvlock.media.clip import Clip
from kvlock.media.fit import Fit, fit_video, unfit_video
from kvlock.media.mask_files import read_mask
from kvlock.media.video import read_video
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import MethodConfig
from kvlock.shapes.scenes import SEED_STRIDE, scene_clips, scene_request, scene_timing


@dataclass(frozen=True)
class Subject:
    """An item as it is edited (`request`), scored (`known`) and written (the times of `clip`).

    notes: what is to be said of its files.
    """

    item: Item
    request: EditRequest
    clip: Clip
    known: Reference
    notes: tuple[str, ...] = ()


def load_subject(suite: Suite, item: Item, seed: int) -> Subject:
    """An item's clip, mask and truth. In the built-in world seed 0 stands for the scene's own seed.

    Raises ValueError for files that cannot be read, or a truth of another size than the clip.
    """
    if item.scene is None:
        return _from_files(suite, item, seed)
    return _from_scene(item, item.scene, seed)


def _from_scene(item: Item, scene: int, seed: int) -> Subject:
    request = replace(
        scene_request(scene, noise=scene + SEED_STRIDE * seed),
        prompt=item.prompt,
        source_prompt=item.source_prompt,
        negative_prompt=item.negative_prompt or "",
    )
    known = Reference(request.video, request.mask, scene_clips(scene)["truth"], scene)
    return Subject(item, request, scene_timing(request.video), known)


def _from_files(suite: Suite, item: Item, seed: int) -> Subject:
    rate = Fraction(item.fps).limit_denominator(1001)
    clip = read_video(suite.folder / item.video, MOST_FRAMES, rate)
    frames, height, width, _ = clip.frames.shape
    mask, notes = read_mask(suite.folder / item.mask, frames, height, width, item.invert_mask)
    truth = read_video(suite.folder / item.truth, MOST_FRAMES).frames if item.truth else None
    if truth is not None and truth.shape != clip.frames.shape:
        found, expected = (tuple(x.shape[:3]) for x in (truth, clip.frames))
        raise ValueError(f"{item.id}: the truth is {found}, the clip {expected}; expected the same")
    prompts = item.prompt, item.source_prompt, item.negative_prompt or ""
    request = EditRequest(clip.frames, mask, *prompts, seed, fps=float(clip.rate))
    known = Reference(clip.frames, mask, truth)
    return Subject(item, request, clip, known, (*clip.notes, *notes))


def edit_subjects(
    backbone: Backbone, model: str, config: MethodConfig, subjects: list[Subject]
) -> list[EditResult]:
    """Edit a batch of the built-in world's scenes together, or clips from files one by one.

    An item without a negative prompt gets that of the model's family.
    """
    family = family_of(model)
    requests = [_request(subject, family) for subject in subjects]
    if subjects[0].item.scene is not None:
        return edit_clips(backbone, requests, config)
    fits = [_fit(backbone, model, subject) for subject in subjects]
    return [edit(backbone, request, config, fit) for request, fit in zip(requests, fits)]


def _request(subject: Subject, family: Family) -> EditRequest:
    if subject.item.negative_prompt is not None:
        return subject.request
    return replace(subject.request, negative_prompt=family.negative_prompt)


@torch.no_grad()
def round_trip(backbone: Backbone, model: str, subject: Subject) -> Tensor:
    """The truth, or without one the source, through the VAE and back: uint8 [F, H, W, 3]."""
    known, fit = subject.known, _fit(backbone, model, subject)
    clip = known.source if known.truth is None else known.truth
    coded = backbone.decode_video(backbone.encode_video(fit_video(clip, fit)[None]))[0]
    return unfit_video(coded, fit)


def _fit(backbone: Backbone, model: str, subject: Subject) -> Fit:
    family, (frames, height, width, _) = family_of(model), subject.clip.frames.shape
    most = family.max_frames or MOST_FRAMES
    return fit_of(backbone, (frames, height, width), family.size, most)
