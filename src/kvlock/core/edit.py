"""KV-Lock, the algorithm: what the paper's listing says, for one clip or several of the same size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvlock.core.calibrated import nearby_variance, path_variance, usual_variance
from kvlock.core.clips import Clips, prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.core.guidance import guide, optimal_scale, project
from kvlock.core.inversion import inverted_path, shift_latents
from kvlock.core.mask import token_foreground
from kvlock.core.protocols import Backbone, Sampler
from kvlock.core.rows import Rows
from kvlock.core.schedule import control_at, may_lock
from kvlock.core.tap import Tap, attached
from kvlock.core.types import Control, EditRequest, EditResult, StepRecord, StepTensors
from kvlock.core.variance import windowed_variance

OnStep = Callable[[list[StepRecord]], None]
Observe = Callable[[StepTensors], None]


class NonFiniteError(ArithmeticError):
    """The latents became NaN or infinite."""


@torch.no_grad()
def edit_clips(
    backbone: Backbone,
    requests: list[EditRequest],
    config: KVLockConfig,
    on_step: OnStep | None = None,
    observe: Observe | None = None,
) -> list[EditResult]:
    """Edit clips of the same size together; a clip's result does not depend on the others.

    The clips' size must suit the model: sides that divide by VAE stride times patch, and stride*n+1 frames.
    `on_step` gets each clip's record of the step just made, `observe` its tensors before it is made.
    Raises ValueError for an unsuitable request, NonFiniteError if the latents stop being finite.
    """
    clips = prepare_clips(backbone, requests)
    anchored = config.background_anchor == "latents" or (config.background_anchor == "auto" and backbone.needs_anchor)
    sampler = backbone.sampler(config.num_inference_steps, multistep=not anchored)
    region = clips.foreground if config.detection == "local" else torch.ones_like(clips.foreground)
    rows = _rows(backbone, requests, clips, config)
    source_at = _source_path(clips, sampler, rows, config)

    latents = _start(clips, source_at, config)
    predictions: tuple[Tensor, ...] = ()
    momentum = None
    records: list[list[StepRecord]] = []
    with attached(rows.tap, rows.sites):
        for step in range(config.first_step, config.num_inference_steps):
            variance, nearby = _watched(predictions, region, sampler.sigmas[: step + 1], backbone.patch_size, config)
            control = control_at(config, step, variance, clips.source[:, 0, 0, 0, 0], nearby)
            if may_lock(config, step):
                velocities = rows.locked(latents, source_at(step), sampler.timestep(step), control.fusion_ratio)
            else:
                velocities = rows.free(latents, sampler.timestep(step))
            guided = _guided(velocities, latents, control, config, sampler, step, momentum)
            momentum = guided.momentum
            watched = guided.velocity if config.signal == "guided" else velocities[0]
            predictions = (*predictions, sampler.denoised(latents, watched, step))[-config.window_steps :]
            if observe:
                branches = tuple(sampler.denoised(latents, v, step) for v in velocities)
                observe(StepTensors(step, sampler.denoised(latents, guided.velocity, step), branches))
            latents = sampler.step(latents, guided.velocity, step)
            if anchored:
                latents = torch.where(clips.foreground[:, None], latents, source_at(step + 1))
            check_finite(latents, step)
            records.append(_records(step, sampler.sigmas[step], variance, control, guided.scale, rows.tap.background))
            if on_step:
                on_step(records[-1])
    videos = backbone.decode_video(latents)
    return [EditResult(video.cpu(), tuple(trace)) for video, trace in zip(videos, zip(*records))]


def _rows(backbone: Backbone, requests: list[EditRequest], clips: Clips, config: KVLockConfig) -> Rows:
    prompts = [backbone.encode_prompt([r.prompt for r in requests])]
    if config.guidance_scale > 1:
        prompts.append(backbone.encode_prompt([r.negative_prompt for r in requests]))
    return Rows(
        backbone,
        Tap(~token_foreground(clips.foreground, backbone.patch_size), config.foreground_ratio),
        backbone.attention_sites(),
        backbone.encode_prompt([r.source_prompt for r in requests]),
        prompts,
        clips.condition,
        batched=config.rows == "batched",
    )


def _source_path(clips: Clips, sampler: Sampler, rows: Rows, config: KVLockConfig) -> Callable[[int], Tensor]:
    """The source at the noise level of each step: noised with the noise that the edit starts from, or inverted."""
    if config.source_path == "noised":
        return lambda step: sampler.add_noise(clips.source, clips.noise, step)
    return inverted_path(rows, sampler, clips.source, config.num_inference_steps).__getitem__


def _start(clips: Clips, source_at: Callable[[int], Tensor], config: KVLockConfig) -> Tensor:
    fresh = config.strength == 1 and config.source_path == "noised"
    latents = clips.noise if fresh else source_at(config.first_step)
    if config.latents_shift:
        latents = shift_latents(latents, clips.noise, clips.foreground, config.latents_shift)
    return latents


def _watched(
    predictions: tuple[Tensor, ...],
    region: Tensor,
    sigmas: Sequence[float],
    patch_size: tuple[int, int, int],
    config: KVLockConfig,
) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
    """The variance [B] and, where tokens have their own alpha, that around each; in multiples of what is usual.

    sigmas: the noise levels up to this step's.
    """
    variance = windowed_variance(predictions, region)
    nearby = nearby_variance(predictions, region, config.lock_width, patch_size) if config.lock_width else None
    if not config.usual or variance is None:
        return variance, nearby
    *levels, sigma = sigmas[-len(predictions) - 1 :]
    usual = usual_variance(config.usual, sigma) * path_variance(levels)
    return variance / usual, nearby and (nearby[0] / usual, nearby[1])


@dataclass(frozen=True)
class _Guided:
    """The guided velocity, s* where it is in use, and what adaptive projected guidance carries to the next step."""

    velocity: Tensor
    scale: Tensor | None = None
    momentum: Tensor | None = None


def _guided(
    velocities: list[Tensor],
    latents: Tensor,
    control: Control,
    config: KVLockConfig,
    sampler: Sampler,
    step: int,
    momentum: Tensor | None,
) -> _Guided:
    if step < config.count(config.zero_init_steps):
        return _Guided(torch.zeros_like(latents))
    if len(velocities) == 1:
        return _Guided(velocities[0])
    conditional, unconditional = velocities
    omega = control.guidance_scale
    if config.guidance == "apg" and step >= config.first_lock_step:
        cond, uncond = (sampler.denoised(latents, v, step) for v in velocities)
        denoised, momentum = project(cond, uncond, omega, momentum)
        return _Guided((latents - denoised) / sampler.sigmas[step], momentum=momentum)
    if not config.unconditional_scale:
        return _Guided(guide(conditional, unconditional, omega, torch.ones_like(omega)))
    scale = optimal_scale(conditional, unconditional)
    return _Guided(guide(conditional, unconditional, omega, scale), scale)


def check_finite(latents: Tensor, step: int) -> None:
    """Raise NonFiniteError unless all of `latents` are finite."""
    if not torch.isfinite(latents).all():
        raise NonFiniteError(
            f"the latents are no longer finite after step {step}; try --dtype float32 or a lower guidance scale"
        )


def _records(
    step: int, sigma: float, variance: Tensor | None, control: Control, scale: Tensor | None, background: Tensor
) -> list[StepRecord]:
    """One record a clip."""
    count = len(control.fusion_ratio)
    variances = [None] * count if variance is None else variance.tolist()
    scales = [None] * count if scale is None else scale.tolist()
    ratio = control.fusion_ratio
    if ratio.ndim == 2:
        ratio = (ratio * background).sum(dim=1) / background.sum(dim=1).clamp(min=1)
    ratios, guidances = ratio.tolist(), control.guidance_scale.tolist()
    return [
        StepRecord(step, float(sigma), v, alpha, omega, s)
        for v, alpha, omega, s in zip(variances, ratios, guidances, scales)
    ]
