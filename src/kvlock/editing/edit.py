"""plan, run, write: what every door calls. Nothing is loaded or written before `run` and `write`."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from kvlock.backbones.calibration import model_defaults
from kvlock.backbones.checkpoints import family_of, known_model
from kvlock.backbones.family import Family
from kvlock.backbones.loading import load_backbone, resolve_device, resolve_dtype
from kvlock.contract.backbone import Backbone
from kvlock.contract.types import EditRequest, StepRecord
from kvlock.core.config import KVLockConfig
from kvlock.core.mask import latent_foreground
from kvlock.cost.estimate import Estimator, Place
from kvlock.cost.fitting import check_frames, check_memory, choose_execution
from kvlock.editing.clips import (
    Denoised,
    clip_size,
    decode_fitted,
    denoise_fitted,
    fit_of,
    fitted,
)
from kvlock.editing.families import check_options, family_notes
from kvlock.editing.job import EditJob
from kvlock.editing.room import frame_bytes
from kvlock.media.clip import Clip
from kvlock.media.composite import composite
from kvlock.media.fit import Fit, fit_mask, unfit_video
from kvlock.media.mask_files import dilate_mask, read_mask
from kvlock.media.video import read_video
from kvlock.methods.catalogue import CALIBRATED, check_model, method_config
from kvlock.methods.execution import Execution
from kvlock.methods.options import MethodConfig
from kvlock.methods.refusals import check_runs

MOST_FRAMES = 1024  # of models whose own limit is not known
TOY_AREA = 10  # times the toy's own area: a real clip, most likely

OnSteps = Callable[[list[StepRecord]], None]


@dataclass(frozen=True)
class EditPlan:
    """What a job means. mask: bool [F, H, W] at the clip's size. notes: sentences for the user.

    seconds: the denoising by the device's rates, None where they are not known.
    """

    job: EditJob
    family: Family
    clip: Clip
    mask: Tensor
    config: MethodConfig
    execution: Execution
    fit: Fit
    requests: tuple[EditRequest, ...]
    peak_bytes: int | None
    notes: tuple[str, ...]

    @property
    def steps(self) -> int:
        """How many steps `run` reports; FlowEdit makes its edits one after the other."""
        rounds = 1 if isinstance(self.config, KVLockConfig) else len(self.requests)
        return rounds * (self.config.num_inference_steps - self.config.first_step)


@dataclass(frozen=True)
class Edits:
    """What `run` made, one a variant. videos: uint8 [F, H, W, 3] at the clip's own size.

    `source_through_vae` gives the source resized and through the model's VAE, at its own size;
    `device` is where they are measured.
    """

    plan: EditPlan
    videos: tuple[Tensor, ...]
    traces: tuple[tuple[StepRecord, ...], ...]
    source_through_vae: Callable[[], Tensor]
    device: torch.device


def plan(job: EditJob) -> EditPlan:
    """Read the clip, the mask and the model's configs, and settle everything else.

    Raises ValueError, in one sentence, for what cannot be done: files, model, method, memory.
    """
    device = resolve_device(job.device)
    dtype = resolve_dtype(job.dtype, str(device))
    family = family_of(job.model)
    config = job.config or _config(job, family)
    clip, mask, notes = _read(job, family)
    estimator = Estimator(job.model, dtype)
    check_runs(config, estimator.backbone)
    area = family.size if job.size == "auto" else None if job.size == "keep" else job.size
    fit = fit_of(estimator.backbone, clip_size(clip.frames), area, family.max_frames or MOST_FRAMES)
    notes += [f"clip: {fit.sentence(job.composite)}", *_warnings(job, clip, mask)]
    requests = _requests(job, family, clip, mask)
    stride = estimator.backbone.vae_stride
    foreground = latent_foreground(fit_mask(mask, fit)[None], stride)[0]
    frames = frame_bytes(fit, len(requests))
    if job.memory_check:
        check_frames(frames)
    place = Place(device, fit.model, foreground, len(requests), frame_bytes=frames)
    asked: dict[str, Any] = {"branches": "sequential"} | job.execution
    execution, peak = Execution(**asked), None
    if family.counted:
        execution = choose_execution(estimator, config, place, job.execution)
    if family.counted and job.memory_check:
        peak = check_memory(estimator, config, execution, place)
    notes += [*_chosen(job, execution), *family_notes(family, config)]
    return EditPlan(
        job, family, clip, mask, config, execution, fit, tuple(requests), peak, tuple(notes)
    )


def run(
    planned: EditPlan,
    on_step: OnSteps | None = None,
    backbone: Backbone | None = None,
    keep: Callable[[Denoised], None] | None = None,
) -> Edits:
    """Load the model, unless one is given, and edit. `on_step` gets every variant's record of a step.

    `keep` gets the edits' latents before anything is decoded.
    """
    model = backbone or load(planned)
    requests = fitted(list(planned.requests), planned.fit)
    denoised = denoise_fitted(model, requests, planned.config, on_step, planned.execution)
    if keep:
        keep(denoised)
    return decoded(planned, model, denoised)


def load(planned: EditPlan) -> Backbone:
    """The model as the plan wants it."""
    job = planned.job
    return load_backbone(
        job.model,
        job.device,
        job.dtype,
        planned.execution.offload,
        job.flow_shift,
        size=planned.fit.model[1:],
        tile_vae=planned.execution.tile_vae,
        compile_blocks=planned.execution.compile,
    )


def decoded(planned: EditPlan, model: Backbone, denoised: Denoised) -> Edits:
    """The edits that were denoised, at the clip's own size."""
    videos = [r.video for r in decode_fitted(model, denoised, planned.fit)]
    if planned.job.composite:
        videos = [composite(planned.clip.frames, video, planned.mask) for video in videos]

    @torch.no_grad()
    def source_through_vae() -> Tensor:
        return unfit_video(model.decode_video(denoised.source)[0], planned.fit)

    return Edits(planned, tuple(videos), denoised.traces, source_through_vae, model.device)


def _config(job: EditJob, family: Family) -> MethodConfig:
    """The model's defaults, then the method's options, then what was asked."""
    check_model(job.method, family.takes_control)
    check_options(job.options, family)
    defaults = model_defaults(job.model, job.method in CALIBRATED)
    return method_config(job.method, defaults, dict(job.options))


def _read(job: EditJob, family: Family) -> tuple[Clip, Tensor, list[str]]:
    """The clip and its mask, and what is to be said of their files."""
    clip, mask, notes = job.clip, job.mask, []
    if not isinstance(clip, Clip):
        rate = Fraction(job.fps).limit_denominator(1001)
        clip = read_video(clip, family.max_frames or MOST_FRAMES, rate)
    notes += clip.notes
    if not isinstance(mask, Tensor):
        frames, height, width, _ = clip.frames.shape
        found = read_mask(mask, frames, height, width, job.invert_mask, job.dilate)
        return clip, found.mask, [*notes, *found.notes]
    return clip, dilate_mask(~mask if job.invert_mask else mask, job.dilate), notes


def _requests(job: EditJob, family: Family, clip: Clip, mask: Tensor) -> list[EditRequest]:
    """One a variant, of the same tensors."""
    negative = family.negative_prompt if job.negative_prompt is None else job.negative_prompt
    base = EditRequest(
        clip.frames,
        mask,
        "",
        job.source_prompt,
        negative,
        background_seed=job.first_background_seed,
        fps=float(clip.rate),
    )
    return [replace(base, prompt=prompt, seed=seed) for prompt, seed in job.variants]


def _warnings(job: EditJob, clip: Clip, mask: Tensor) -> list[str]:
    """What is allowed, but seldom meant."""
    warnings = []
    if mask.all():
        warnings.append("warning: the mask is full, so there is no background to keep")
    known = known_model(job.model)
    if not (known and known.packaged):
        return warnings
    words = re.findall(r"\w+", " ".join(job.prompts))
    unknown = sorted({w for w in words if w.lower() not in _toy_words()})
    area = clip.frames.shape[1] * clip.frames.shape[2]
    height, width = known.spec.size or clip.frames.shape[1:3]
    if unknown or area >= TOY_AREA * height * width:
        reasons = [f"it has never read {', '.join(unknown)}"] if unknown else []
        if area >= TOY_AREA * height * width:
            reasons.append(f"clips of {width}x{height} are all it was trained on")
        warnings.append(
            f"warning: {known.name} is the toy, it knows coloured shapes and nothing else "
            f"({'; '.join(reasons)}); kvlock models lists models for real clips"
        )
    return warnings


def _toy_words() -> list[str]:
    from kvlock.shapes.checkpoint import VOCABULARY

    return VOCABULARY


def _chosen(job: EditJob, execution: Execution) -> list[str]:
    """What was chosen because of memory, in the command line's words."""
    chosen = {n: v for n, v in asdict(execution).items() if n not in job.execution}
    return [
        f"chosen to save memory: --{name.replace('_', '-')} {value}"
        for name, value in chosen.items()
        if value != getattr(Execution(), name)
    ]
